//! One trace by its id.

use super::*;

impl Block {
    /// The trace as an OTLP `TracesData` message.
    pub async fn find(&self, ctx: &QueryContext, file: &Arc<File>, id: &TraceId) -> Result<Option<Bytes>> {
        let Some(row_group) = self.row_group_of(ctx, file, id).await? else { return Ok(None) };
        let Some(column) = file.column("TraceID") else {
            return Err(Error::damaged(format!("{self:?}: no column TraceID")));
        };
        let ids = self.columns(ctx, file, row_group, vec![column], Rows::All).await?;
        let wanted = *id;
        // One row; more in blocks that Tempo wrote with copies.
        let rows = compute(move || {
            let data = ids.decode()?;
            let mut rows = vec![false; data.row_count];
            Cursor::new(data.columns.get(&column)).rows(data.row_count, |row, at, cursor| {
                rows[row] = cursor.bytes_at(at) == wanted;
                Ok(())
            })?;
            Ok(ranges_of(&rows))
        })
        .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let all = (0..file.metadata.file_metadata().schema_descr().num_columns()).collect();
        let fetched = self.columns(ctx, file, row_group, all, Rows::Some(rows)).await?;
        let meta = self.meta.clone();
        compute(move || {
            let data = fetched.decode()?;
            let named = Named::new(&meta);
            let mut traces = Traces::new(&data, &named);
            let mut out = Vec::new();
            while let Some((trace, _)) = traces.next_trace()? {
                // Messages one after the other are one message.
                otlp::encode(&trace, &mut out);
            }
            Ok(Some(out.into()))
        })
        .await
    }

    /// By `index`, or by the statistics of the row groups.
    async fn row_group_of(&self, ctx: &QueryContext, file: &File, id: &TraceId) -> Result<Option<usize>> {
        ctx.check()?;
        if let Some(index) = self.row_group_index().await?
            && index.0.len() == file.metadata.num_row_groups()
        {
            return Ok(index.find(id));
        }
        let column = file.column("TraceID");
        Ok((0..file.metadata.num_row_groups()).find(|row_group| {
            match column.and_then(|c| file.chunk(*row_group, c)).and_then(|c| c.statistics()) {
                Some(Statistics::ByteArray(s)) => s.max_opt().is_none_or(|max| max.data() >= id.as_slice()),
                _ => true,
            }
        }))
    }
}
