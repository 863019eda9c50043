//! Names and values of attributes in one block: from dictionaries where nothing filters, else from the rows that match.

use super::*;

impl Block {
    /// Names of attributes. Without a filter the dictionaries of the key columns answer.
    pub async fn tag_names(
        &self,
        ctx: &QueryContext,
        file: &Arc<File>,
        matcher: &Arc<Matcher>,
        names: &mut TagNames,
    ) -> Result<()> {
        for row_group in 0..file.metadata.num_row_groups() {
            ctx.check()?;
            if names.full() {
                return Ok(());
            }
            if !matcher.tests.is_empty() {
                let mut wanted = Wanted::default();
                for (_, scope) in SCOPES.iter().filter(|(_, s)| names.wants(*s)) {
                    for prefix in places(*scope) {
                        wanted.attributes(prefix);
                        wanted.0.extend(named_columns(&self.meta, prefix).into_iter().map(|(_, path)| path));
                        if *prefix == RESOURCE {
                            wanted.add(&["rs.Resource.ServiceName"]);
                        }
                    }
                }
                let mut taken = names.fresh();
                let matcher_in = matcher.clone();
                let found = self
                    .visit(ctx, file, matcher, row_group, wanted, move |traces| {
                        while let Some((trace, derived)) = traces.next_trace()? {
                            taken.add_trace(&trace, &derived, &matcher_in);
                        }
                        Ok(taken)
                    })
                    .await?;
                if let Some(found) = found {
                    names.absorb(found);
                }
                continue;
            }
            if !bounds_allow(file, matcher, row_group) {
                continue;
            }
            for (_, scope) in SCOPES {
                if names.wants(scope) {
                    for prefix in places(scope) {
                        self.keys(ctx, file, row_group, scope, prefix, names).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The names in one place of one row group: generic keys, and columns of single attributes that hold a value.
    async fn keys(
        &self,
        ctx: &QueryContext,
        file: &Arc<File>,
        row_group: usize,
        scope: Scope,
        prefix: &str,
        names: &mut TagNames,
    ) -> Result<()> {
        let key = format!("{prefix}.Attrs.Key");
        for text in self.texts(ctx, file, row_group, &key).await? {
            names.add(scope, &text);
        }
        let mut own = named_columns(&self.meta, prefix);
        if prefix == RESOURCE {
            own.push((SERVICE_NAME.to_owned(), "rs.Resource.ServiceName".to_owned()));
        }
        for (name, path) in own {
            let has_values = file.column(&path).and_then(|c| file.chunk(row_group, c)).is_some_and(|chunk| {
                chunk.statistics().is_none_or(|s| {
                    s.null_count_opt().is_none_or(|nulls| (nulls as i64) < chunk.num_values())
                })
            });
            if has_values {
                names.add(scope, &name);
            }
        }
        Ok(())
    }

    /// The different texts of a column: of its dictionary, or of all its values.
    async fn texts(
        &self,
        ctx: &QueryContext,
        file: &Arc<File>,
        row_group: usize,
        path: &str,
    ) -> Result<Vec<String>> {
        let Some(column) = file.column(path) else { return Ok(Vec::new()) };
        let mut found = self.read_dictionaries(ctx, file, row_group, vec![column]).await?;
        let to_text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some(entries) = found.entries.remove(&column) {
            return Ok(entries.iter().map(|e| to_text(e)).collect());
        }
        let fetched = self.columns(ctx, file, row_group, vec![column], Rows::All).await?;
        compute(move || {
            let data = fetched.decode()?;
            let mut out = BTreeSet::new();
            Cursor::new(data.columns.get(&column)).rows(data.row_count, |_, at, cursor| {
                let text = cursor.bytes_at(at);
                if !out.contains(text) {
                    out.insert(text.to_vec());
                }
                Ok(())
            })?;
            Ok(out.iter().map(|t| to_text(t)).collect())
        })
        .await
    }

    /// Values of attributes; where nothing filters and the values are in one column of texts, its dictionary answers.
    pub async fn tag_values(
        &self,
        ctx: &QueryContext,
        file: &Arc<File>,
        matcher: &Arc<Matcher>,
        values: TagValues,
    ) -> Result<TagValues> {
        let mut values = values;
        for row_group in 0..file.metadata.num_row_groups() {
            ctx.check()?;
            if values.done() {
                break;
            }
            let lone = match values.attributes.as_slice() {
                [Attribute::Intrinsic(i)] if is_text_column(*i) => intrinsic_column(*i),
                [Attribute::Named(Scope::Resource, name)] if **name == *SERVICE_NAME => {
                    Some("rs.Resource.ServiceName")
                }
                _ => None,
            };
            if let (Some(path), true) = (lone, matcher.tests.is_empty()) {
                if bounds_allow(file, matcher, row_group) {
                    for text in self.texts(ctx, file, row_group, path).await? {
                        values.add(Value::String(text));
                    }
                }
                continue;
            }
            // The attributes count as wanted: a row group whose keys lack them all is not read.
            let attributes = values.attributes.clone();
            let narrowed = Arc::new(Matcher { attributes: attributes.clone(), ..(**matcher).clone() });
            let pushed = Vec::new();
            let dictionaries = self.dictionaries(ctx, file, &narrowed, &pushed, row_group).await?;
            let mut wanted = Wanted::default();
            let has_generic =
                |prefix: &str, name: &str| dictionaries.may_have(file, &format!("{prefix}.Attrs.Key"), name);
            for attribute in &attributes {
                wanted.attribute(self, attribute, &has_generic);
            }
            let mut taken = values.fresh();
            let matcher_in = matcher.clone();
            let result = self
                .visit(ctx, file, matcher, row_group, wanted, move |traces| {
                    while let Some((trace, derived)) = traces.next_trace()? {
                        taken.add_trace(&trace, &derived, &matcher_in);
                        if taken.done() {
                            break;
                        }
                    }
                    Ok(taken)
                })
                .await?;
            if let Some(new) = result {
                values.absorb(new);
            }
        }
        Ok(values)
    }
}
