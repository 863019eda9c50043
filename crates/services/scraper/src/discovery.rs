//! Where targets come from: the config itself, and files that are read again every so often.

use serde::Deserialize;
use triptych_model::{Error, Result};

use crate::config::{FileSdConfig, ScrapeConfig, StaticConfig, paths};
use crate::target::Group;

/// Largest file of targets.
const FILE_BYTES_MAX: u64 = 64 << 20;

fn group(config: &StaticConfig) -> Group {
    let labels = config.labels.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    Group { targets: config.targets.clone(), labels }
}

/// All groups of a job as they are now. A file that cannot be read is named in `wrong`; the caller keeps what it knew of the
/// job then, as Prometheus does.
pub fn groups(job: &ScrapeConfig, wrong: &mut Vec<Error>) -> Vec<Group> {
    let mut groups: Vec<Group> = job.static_configs.iter().map(group).collect();
    for config in &job.file_sd_configs {
        match files(config) {
            Ok(found) => groups.extend(found),
            Err(error) => wrong.push(error),
        }
    }
    groups
}

fn files(config: &FileSdConfig) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    for pattern in &config.files {
        for path in paths(pattern)? {
            let shown = path.display().to_string();
            let failed = |e: String| Error::invalid(format!("{shown}: {e}"));
            let size = std::fs::metadata(&path).map_err(|e| failed(e.to_string()))?.len();
            if size > FILE_BYTES_MAX {
                return Err(failed(format!("{size} bytes, the limit is {FILE_BYTES_MAX}")));
            }
            let text = std::fs::read_to_string(&path).map_err(|e| failed(e.to_string()))?;
            for mut one in parse(&text).map_err(failed)? {
                one.labels.push(("__meta_filepath".to_owned(), shown.clone()));
                groups.push(one);
            }
        }
    }
    Ok(groups)
}

/// JSON is YAML.
fn parse(text: &str) -> Result<Vec<Group>, String> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct List(Vec<StaticConfig>);
    if text.trim().is_empty() {
        return Ok(vec![]);
    }
    let List(list) = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    Ok(list.iter().map(group).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_both_forms() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("a.json", r#"[{"targets": ["a:1", "b:2"], "labels": {"env": "prod"}}]"#);
        write("b.yml", "- targets: [c:3]\n");
        let job = ScrapeConfig {
            file_sd_configs: vec![FileSdConfig {
                files: vec![dir.path().join("*").display().to_string()],
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut wrong = Vec::new();
        let found = groups(&job, &mut wrong);
        assert_eq!(found.iter().flat_map(|g| g.targets.clone()).collect::<Vec<_>>(), ["a:1", "b:2", "c:3"]);
        assert_eq!(found[0].labels[0], ("env".to_owned(), "prod".to_owned()));
        write("c.json", "[{");
        groups(&job, &mut wrong);
        assert!(wrong[0].to_string().contains("c.json"), "{wrong:?}");
    }
}
