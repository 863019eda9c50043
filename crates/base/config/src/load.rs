//! Reading a config: YAML text, `${NAME}` or `${NAME:default}` from the environment, then `--set a.b.c=value` on top. What is not
//! said keeps its default; what is not known is an error that names the key.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use triptych_model::{Error, Result};

/// Reads `file` (none: all defaults) and applies `sets`.
pub fn load<T: DeserializeOwned>(file: Option<&Path>, sets: &[String]) -> Result<T> {
    let text = match file {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| Error::invalid(format!("config file {}: {e}", path.display())))?,
    };
    parse(&text, sets, |name| std::env::var(name).ok())
        .map_err(|e| file.map_or(e.clone(), |path| e.context(path.display())))
}

/// As [`load`], from text and with the environment handed in.
pub fn parse<T: DeserializeOwned>(
    yaml: &str,
    sets: &[String],
    env: impl Fn(&str) -> Option<String>,
) -> Result<T> {
    let text = expand(yaml, env)?;
    let mut tree = yaml_value(&text)?;
    for set in sets {
        let (key, value) = set.split_once('=').ok_or_else(|| {
            Error::invalid(format!("--set {set}: write it as key=value, for example agent.enabled=false"))
        })?;
        put(&mut tree, key, yaml_value(value)?)?;
    }
    serde_path_to_error::deserialize(tree).map_err(|e| {
        let path = e.path().to_string();
        Error::invalid(if path == "." { e.inner().to_string() } else { format!("{path}: {}", e.inner()) })
    })
}

fn yaml_value(text: &str) -> Result<Value> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Value::Object(Map::new()));
    }
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true })
        .map_err(|e| Error::invalid(e.to_string()))
}

fn put(tree: &mut Value, key: &str, value: Value) -> Result<()> {
    let mut at = tree;
    for part in key.split('.') {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else {
            return Err(Error::invalid(format!("--set {key}: {part:?} is below a key that holds no keys")));
        };
        at = map.entry(part).or_insert(Value::Null);
    }
    *at = value;
    Ok(())
}

/// Replaces `${NAME}` and `${NAME:default}`; `$${` stands for `${`. A name that is not set and has no default is an error: an
/// empty password is worse than none.
fn expand(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<String> {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let end = rest[at..].find('}').ok_or_else(|| Error::invalid("config: ${ without }"))? + at;
        let (name, default) = match rest[at + 2..end].split_once(':') {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (&rest[at + 2..end], None),
        };
        let value = env(name).or(default).ok_or_else(|| {
            Error::invalid(format!(
                "config: environment variable {name} is not set (write ${{{name}:default}} to allow that)"
            ))
        })?;
        out.push_str(&value);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        port: u16,
        name: String,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Outer {
        inner: Inner,
        on: bool,
    }

    fn read(yaml: &str, sets: &[&str]) -> Result<Outer> {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        parse(yaml, &sets, |name| (name == "PORT").then(|| "81".to_owned()))
    }

    #[test]
    fn file_environment_and_set() {
        assert_eq!(read("", &[]).unwrap(), Outer::default());
        let read_all =
            read("inner:\n  port: ${PORT}\n  name: ${NAME:x}\n", &["on=true", "inner.name=y"]).unwrap();
        assert_eq!(read_all, Outer { inner: Inner { port: 81, name: "y".into() }, on: true });
        assert_eq!(read("inner: {name: '$${PORT}'}", &[]).unwrap().inner.name, "${PORT}");
    }

    #[test]
    fn errors_name_the_key() {
        let error = |yaml: &str, sets: &[&str]| read(yaml, sets).unwrap_err().to_string();
        assert!(error("inner: {prt: 1}", &[]).contains("unknown field `prt`"));
        assert!(error("inner: {port: x}", &[]).starts_with("inner.port:"));
        assert!(error("a: ${NOPE}", &[]).contains("NOPE is not set"));
        assert!(error("", &["nonsense"]).contains("key=value"));
        assert!(error("on: true", &["on.x=1"]).contains("holds no keys"));
    }
}
