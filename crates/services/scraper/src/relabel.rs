//! Relabelling (prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config).

use md5::{Digest, Md5};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use triptych_model::matcher::anchored_regex;
use triptych_model::{Error, LabelsBuilder, Result};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    #[default]
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

/// One rule as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RelabelConfig {
    pub source_labels: Vec<String>,
    pub separator: String,
    pub regex: String,
    pub modulus: u64,
    pub target_label: String,
    pub replacement: String,
    pub action: Action,
}

impl Default for RelabelConfig {
    fn default() -> Self {
        Self {
            source_labels: vec![],
            separator: ";".to_owned(),
            regex: "(.*)".to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: "$1".to_owned(),
            action: Action::Replace,
        }
    }
}

/// Rules, compiled.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    config: RelabelConfig,
    regex: Regex,
}

impl Rules {
    pub fn new(configs: &[RelabelConfig]) -> Result<Self> {
        configs.iter().map(Rule::new).collect::<Result<_>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies the rules in order. False: the target or sample is dropped.
    pub fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        self.0.iter().all(|rule| rule.apply(labels))
    }
}

impl Rule {
    fn new(config: &RelabelConfig) -> Result<Self> {
        use Action::*;
        let wrong =
            |what: &str| Error::invalid(format!("relabel_config: {what} for action {:?}", config.action));
        let needs_target =
            matches!(config.action, Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual);
        if needs_target && config.target_label.is_empty() {
            return Err(wrong("target_label is missing"));
        }
        if config.action == HashMod && config.modulus == 0 {
            return Err(wrong("modulus must be above 0"));
        }
        Ok(Self { config: config.clone(), regex: anchored_regex(&config.regex)? })
    }

    fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        let config = &self.config;
        let source = || {
            let values = config.source_labels.iter().map(|name| labels.get(name).unwrap_or(""));
            values.collect::<Vec<_>>().join(&config.separator)
        };
        match config.action {
            Action::Keep => self.regex.is_match(&source()),
            Action::Drop => !self.regex.is_match(&source()),
            Action::KeepEqual => source() == labels.get(&config.target_label).unwrap_or(""),
            Action::DropEqual => source() != labels.get(&config.target_label).unwrap_or(""),
            Action::Replace => {
                let source = source();
                let Some(captures) = self.regex.captures(&source) else { return true };
                let (mut target, mut value) = (String::new(), String::new());
                captures.expand(&config.target_label, &mut target);
                captures.expand(&config.replacement, &mut value);
                if is_label_name(&target) {
                    labels.set(&target, &value);
                }
                true
            }
            Action::Lowercase => {
                let value = source().to_lowercase();
                labels.set(&config.target_label, &value);
                true
            }
            Action::Uppercase => {
                let value = source().to_uppercase();
                labels.set(&config.target_label, &value);
                true
            }
            Action::HashMod => {
                // The last eight bytes of the MD5, big endian: what Prometheus shards by.
                let digest = Md5::digest(source().as_bytes());
                let mut last = [0; 8];
                last.copy_from_slice(&digest[8..]);
                let value = (u64::from_be_bytes(last) % config.modulus).to_string();
                labels.set(&config.target_label, &value);
                true
            }
            Action::LabelMap => {
                let mut mapped = Vec::new();
                for (name, value) in labels.iter() {
                    if let Some(captures) = self.regex.captures(name) {
                        let mut target = String::new();
                        captures.expand(&config.replacement, &mut target);
                        mapped.push((target, value.to_owned()));
                    }
                }
                for (name, value) in mapped {
                    labels.set(&name, &value);
                }
                true
            }
            Action::LabelDrop | Action::LabelKeep => {
                let keep = config.action == Action::LabelKeep;
                let gone: Vec<String> = labels
                    .iter()
                    .map(|(n, _)| n.to_owned())
                    .filter(|n| self.regex.is_match(n) != keep)
                    .collect();
                for name in gone {
                    labels.remove(&name);
                }
                true
            }
        }
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`; anything else as a target is left alone.
fn is_label_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use triptych_model::Labels;

    use super::*;

    /// Applies rules written in YAML to `a="foo", b="bar", c="baz"`; `None`: dropped.
    fn check(rules: &str, expected: Option<&str>) {
        let configs: Vec<RelabelConfig> = serde_saphyr::from_str(rules).unwrap();
        let mut labels = Labels::from_pairs([("a", "foo"), ("b", "bar"), ("c", "baz")]).to_builder();
        let kept = Rules::new(&configs).unwrap().apply(&mut labels);
        assert_eq!(kept.then(|| labels.build().to_string()).as_deref(), expected, "{rules}");
    }

    #[test]
    fn actions() {
        check(
            "[{source_labels: [a], regex: 'f(.*)', target_label: d, replacement: 'ch${1}-ch${1}'}]",
            Some(r#"{a="foo", b="bar", c="baz", d="choo-choo"}"#),
        );
        check(
            "[{source_labels: [a, b], regex: 'foo;bar', target_label: b, replacement: ''}]",
            Some(r#"{a="foo", c="baz"}"#),
        );
        check("[{source_labels: [a], regex: 'o', action: drop}]", Some(r#"{a="foo", b="bar", c="baz"}"#));
        check("[{source_labels: [a], regex: '.*o.*', action: drop}]", None);
        check("[{source_labels: [a], regex: 'no', action: keep}]", None);
        check("[{source_labels: [a], target_label: c, action: keepequal}]", None);
        check(
            "[{source_labels: [a], target_label: c, action: dropequal}]",
            Some(r#"{a="foo", b="bar", c="baz"}"#),
        );
        check(
            "[{source_labels: [c], target_label: d, action: hashmod, modulus: 1000}]",
            Some(r#"{a="foo", b="bar", c="baz", d="976"}"#),
        );
        check(
            "[{regex: '(b|c)', replacement: 'x_$1', action: labelmap}]",
            Some(r#"{a="foo", b="bar", c="baz", x_b="bar", x_c="baz"}"#),
        );
        check("[{regex: '(b|c)', action: labeldrop}]", Some(r#"{a="foo"}"#));
        check("[{regex: '(b|c)', action: labelkeep}]", Some(r#"{b="bar", c="baz"}"#));
        check(
            "[{source_labels: [a], target_label: a, action: uppercase}]",
            Some(r#"{a="FOO", b="bar", c="baz"}"#),
        );
        check(
            "[{source_labels: [a], regex: '(.*)', target_label: '${1}-x', replacement: y}]",
            Some(r#"{a="foo", b="bar", c="baz"}"#),
        );
    }

    #[test]
    fn wrong_rules_are_refused() {
        for rules in
            ["[{action: replace}]", "[{action: hashmod, target_label: a}]", "[{regex: '(', target_label: a}]"]
        {
            let configs: Vec<RelabelConfig> = serde_saphyr::from_str(rules).unwrap();
            assert!(Rules::new(&configs).is_err(), "{rules}");
        }
    }
}
