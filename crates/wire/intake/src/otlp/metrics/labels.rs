//! Labels of a data point: its attributes, `job`, `instance`; then per series the name and `le` or `quantile`.

use super::*;

/// What the resource tells: `job`, `instance`, and what stands on `target_info`.
pub(super) struct Target<'a> {
    pub job: Option<String>,
    pub instance: Option<String>,
    others: Vec<(&'a str, AnyValue<'a>)>,
}

impl<'a> Target<'a> {
    /// From a `ResourceMetrics`.
    pub fn read(resource_metrics: &'a [u8]) -> Result<Self> {
        let (mut service, mut namespace, mut instance) = (None, None, None);
        let mut others = Vec::new();
        let text = |value: AnyValue<'_>| {
            let mut out = String::new();
            value.append_text(&mut out).map(|()| out)
        };
        for field in Fields::new(resource_metrics) {
            let (1, resource) = field? else { continue };
            each_pair(resource.bytes("ResourceMetrics.resource")?, 1, |key, value| {
                match key {
                    "service.name" => service = Some(text(value)?),
                    "service.namespace" => namespace = Some(text(value)?),
                    "service.instance.id" => instance = Some(text(value)?),
                    _ if others.len() == ATTRIBUTES_MAX => return Err(too_many()),
                    _ => others.push((key, value)),
                }
                Ok(())
            })?;
        }
        let job = service.map(|service| match namespace {
            Some(namespace) => format!("{namespace}/{service}"),
            None => service,
        });
        Ok(Self { job, instance, others })
    }

    /// The labels of `target_info`; `None` where nothing would be told, or nobody could join it.
    pub fn info(&self) -> Result<Option<Vec<(String, String)>>> {
        if self.others.is_empty() || (self.job.is_none() && self.instance.is_none()) {
            return Ok(None);
        }
        let mut others = self.others.clone();
        others.sort_by(|a, b| a.0.cmp(b.0));
        let mut out: Vec<(String, String)> = vec![(METRIC_NAME.to_owned(), "target_info".to_owned())];
        for (key, value) in others {
            if key.is_empty() {
                continue;
            }
            let (mut name, mut text) = (String::new(), String::new());
            names::append_label_name(key, &mut name);
            value.append_text(&mut text)?;
            match out.iter_mut().find(|(n, _)| *n == name) {
                Some((_, joined)) if name != METRIC_NAME => {
                    joined.push(';');
                    joined.push_str(&text);
                }
                Some(_) => {}
                None => out.push((name, text)),
            }
        }
        for (name, value) in [("job", &self.job), ("instance", &self.instance)] {
            if let Some(value) = value {
                out.push((name.to_owned(), value.clone()));
            }
        }
        Ok(Some(out))
    }
}

#[derive(Clone, Copy)]
enum Piece<'a> {
    Body(&'a str),
    Text(usize, usize),
}

struct Item<'a> {
    key: &'a str,
    name: Piece<'a>,
    value: Piece<'a>,
}

/// The labels of one data point, without name; cleared, not freed, from point to point.
#[derive(Default)]
pub(super) struct Labels<'a> {
    text: String,
    items: Vec<Item<'a>>,
    job: Option<String>,
    instance: Option<String>,
}

impl<'a> Labels<'a> {
    fn get(&self, piece: Piece<'a>) -> &str {
        match piece {
            Piece::Body(text) => text,
            Piece::Text(start, end) => &self.text[start..end],
        }
    }

    /// Reads the point's attributes (each a `KeyValue`).
    pub fn read(&mut self, attributes: &[&'a [u8]], target: &Target<'a>) -> Result<()> {
        self.text.clear();
        self.items.clear();
        self.job.clone_from(&target.job);
        self.instance.clone_from(&target.instance);
        let mut escaped = false;
        for attribute in attributes {
            let (key, value) = read_pair(attribute)?;
            if key.is_empty() {
                continue;
            }
            let name = if names::is_label_name(key) {
                Piece::Body(key)
            } else {
                escaped = true;
                let start = self.text.len();
                names::append_label_name(key, &mut self.text);
                Piece::Text(start, self.text.len())
            };
            let value = match value {
                AnyValue::Text(text) => Piece::Body(text),
                other => {
                    let start = self.text.len();
                    other.append_text(&mut self.text)?;
                    Piece::Text(start, self.text.len())
                }
            };
            self.items.push(Item { key, name, value });
        }
        let mut items = std::mem::take(&mut self.items);
        items.sort_by(|a, b| self.get(a.name).cmp(self.get(b.name)).then_with(|| a.key.cmp(b.key)));
        if escaped && items.windows(2).any(|w| self.get(w[0].name) == self.get(w[1].name)) {
            self.join_equal_names(&mut items);
        }
        self.items = items;
        Ok(())
    }

    /// `a.b` and `a_b` are one label: values joined with `;`.
    fn join_equal_names(&mut self, items: &mut Vec<Item<'a>>) {
        let mut text = std::mem::take(&mut self.text);
        let get = |piece: Piece<'a>, text: &String| match piece {
            Piece::Body(text) => text.to_owned(),
            Piece::Text(start, end) => text[start..end].to_owned(),
        };
        let mut kept = 0;
        let mut i = 0;
        while i < items.len() {
            let name = get(items[i].name, &text);
            let run = 1 + items[i + 1..].iter().take_while(|item| get(item.name, &text) == name).count();
            items.swap(kept, i);
            if run > 1 {
                let mut joined = get(items[kept].value, &text);
                for item in &items[i + 1..i + run] {
                    joined.push(';');
                    joined.push_str(&get(item.value, &text));
                }
                let start = text.len();
                text.push_str(&joined);
                items[kept].value = Piece::Text(start, text.len());
            }
            kept += 1;
            i += run;
        }
        items.truncate(kept);
        self.text = text;
    }

    /// The sorted label set of one series: the metric's name and `extra` win over `job` and `instance`, these over attributes.
    pub fn series<'s>(
        &'s self,
        name: &'s str,
        extra: Option<(&'s str, &'s str)>,
        out: &mut Vec<(&'s str, &'s str)>,
    ) {
        out.clear();
        out.extend(self.items.iter().map(|i| (self.get(i.name), self.get(i.value))));
        for (name, value) in [("job", &self.job), ("instance", &self.instance)] {
            if let Some(value) = value {
                out.push((name, value));
            }
        }
        out.extend(extra);
        out.push((METRIC_NAME, name));
        sort_last_wins(out);
    }
}
