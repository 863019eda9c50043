//! What a target is after relabelling: where it is fetched, and which labels its series get.

use std::time::Duration;

use reqwest::Url;
use serde_json::json;
use triptych_model::{Error, Labels, LabelsBuilder, Result};

use crate::config::ScrapeConfig;
use crate::relabel::Rules;

/// A group of addresses with labels in common, as discovery finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub targets: Vec<String>,
    pub labels: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub job: String,
    pub url: Url,
    /// Before relabelling, for `/api/v1/targets`.
    pub discovered: Labels,
    /// What every series of the target gets.
    pub labels: Labels,
    pub interval: Duration,
    pub timeout: Duration,
}

/// A target that relabelling dropped is `None`.
pub fn build(
    job: &ScrapeConfig,
    rules: &Rules,
    group: &Group,
    address: &str,
    interval: Duration,
    timeout: Duration,
) -> Result<Option<Target>> {
    let mut labels = LabelsBuilder::default();
    for (name, value) in &group.labels {
        labels.set(name, value);
    }
    let mut default = |name: &str, value: &str| {
        if labels.get(name).is_none() {
            labels.set(name, value);
        }
    };
    default("job", &job.job_name);
    default("__scheme__", &job.scheme);
    default("__metrics_path__", &job.metrics_path);
    default("__scrape_interval__", &triptych_config::duration::format(interval));
    default("__scrape_timeout__", &triptych_config::duration::format(timeout));
    for (name, values) in &job.params {
        if let Some(first) = values.first() {
            default(&format!("__param_{name}"), first);
        }
    }
    labels.set("__address__", address);
    let discovered = labels.build();
    if !rules.apply(&mut labels) {
        return Ok(None);
    }
    let get = |name: &str| labels.get(name).unwrap_or("").to_owned();
    let wrong = |what: String| Error::invalid(format!("job {:?}, target {address:?}: {what}", job.job_name));
    let address = get("__address__");
    if address.is_empty() {
        return Err(wrong("no address after relabelling".to_owned()));
    }
    if address.contains('/') {
        return Err(wrong("an address is host:port, without scheme and path".to_owned()));
    }
    let time = |name: &str| triptych_config::duration::parse(&get(name)).map_err(&wrong);
    let (interval, timeout) = (time("__scrape_interval__")?, time("__scrape_timeout__")?);
    if interval.is_zero() || timeout > interval {
        return Err(wrong("the scrape timeout must not be longer than the interval".to_owned()));
    }
    let mut url = Url::parse(&format!("{}://{address}{}", get("__scheme__"), get("__metrics_path__")))
        .map_err(|e| wrong(e.to_string()))?;
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, values) in &job.params {
        pairs.extend(values.iter().skip(1).map(|v| (name.clone(), v.clone())));
    }
    let first =
        labels.iter().filter_map(|(n, v)| Some((n.strip_prefix("__param_")?.to_owned(), v.to_owned())));
    pairs.splice(0..0, first.collect::<Vec<_>>());
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    if labels.get("instance").is_none() {
        labels.set("instance", &address);
    }
    let labels = labels.build().filter(|name| !name.starts_with("__"));
    Ok(Some(Target { job: job.job_name.clone(), url, discovered, labels, interval, timeout }))
}

/// How the last scrape went.
#[derive(Debug, Clone, Default)]
pub struct Health {
    pub scraped_at: Option<jiff::Timestamp>,
    pub took: Duration,
    /// `None`: not scraped yet; else the error, empty where there was none.
    pub error: Option<String>,
}

impl Target {
    /// As `/api/v1/targets` shows it.
    pub fn shown(&self, health: &Health) -> serde_json::Value {
        let map = |labels: &Labels| -> serde_json::Map<String, serde_json::Value> {
            labels.iter().map(|(n, v)| (n.to_owned(), v.into())).collect()
        };
        let state = match health.error.as_deref() {
            None => "unknown",
            Some("") => "up",
            Some(_) => "down",
        };
        json!({
            "discoveredLabels": map(&self.discovered),
            "labels": map(&self.labels),
            "scrapePool": self.job,
            "scrapeUrl": self.url.as_str(),
            "globalUrl": self.url.as_str(),
            "lastError": health.error.as_deref().unwrap_or(""),
            "lastScrape": health.scraped_at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |t| t.to_string()),
            "lastScrapeDuration": health.took.as_secs_f64(),
            "health": state,
            "scrapeInterval": triptych_config::duration::format(self.interval),
            "scrapeTimeout": triptych_config::duration::format(self.timeout),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_url() {
        let job: ScrapeConfig = serde_saphyr::from_str(
            "{job_name: probe, metrics_path: /probe, params: {module: [http, x]}, relabel_configs: [\
             {source_labels: [__address__], target_label: __param_target},\
             {source_labels: [__param_target], target_label: instance},\
             {target_label: __address__, replacement: 'exporter:9115'}]}",
        )
        .unwrap();
        let rules = Rules::new(&job.relabel_configs).unwrap();
        let group = Group { targets: vec![], labels: vec![("env".into(), "prod".into())] };
        let (interval, timeout) = (Duration::from_secs(15), Duration::from_secs(10));
        let target = build(&job, &rules, &group, "example.org", interval, timeout).unwrap().unwrap();
        assert_eq!(target.url.as_str(), "http://exporter:9115/probe?module=http&target=example.org&module=x");
        assert_eq!(target.labels.to_string(), r#"{env="prod", instance="example.org", job="probe"}"#);
        assert!(build(&job, &Rules::default(), &group, "http://x/", interval, timeout).is_err());
    }
}
