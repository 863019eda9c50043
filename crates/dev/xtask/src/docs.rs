//! Docs that a test keeps true: the drawing of the rooms, the paths that are named, the length of files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const PAGE: &str = "docs/ARCHITECTURE.md";
const BEGIN: &str = "<!-- graph:begin";
const END: &str = "<!-- graph:end -->";
/// Longer files want a reason: a line that begins with `//! Longer than most:` in the file.
const LINES_MAX: usize = 800;

pub fn write_graph(root: &Path, graph: &str) -> Result<()> {
    let path = root.join(PAGE);
    let page = fs::read_to_string(&path)?;
    fs::write(&path, with_graph(&page, graph)?)?;
    println!("{PAGE} is current");
    Ok(())
}

fn with_graph(page: &str, graph: &str) -> Result<String> {
    let begin = page.find(BEGIN).context("ARCHITECTURE.md: graph:begin is missing")?;
    let line_end = begin + page[begin..].find('\n').context("ARCHITECTURE.md: graph:begin is torn")? + 1;
    let end = page.find(END).context("ARCHITECTURE.md: graph:end is missing")?;
    Ok(format!("{}{graph}{}", &page[..line_end], &page[end..]))
}

pub fn check(root: &Path, graph: &str) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let page = fs::read_to_string(root.join(PAGE))?;
    if with_graph(&page, graph)? != page {
        wrong.push(format!("{PAGE}: the drawing is old, run `cargo run -p triptych-xtask -- graph`"));
    }
    let mut files = Vec::new();
    for folder in ["docs", "crates", "e2e"] {
        walk(&root.join(folder), &mut files)?;
    }
    files.push(root.join("README.md"));
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if name.ends_with(".md") {
            for path in named_paths(&text) {
                if !root.join(path).exists() {
                    wrong.push(format!("{name}: `{path}` is not there"));
                }
            }
        } else if name.ends_with(".rs") && !name.contains("test") {
            let lines = text.lines().count();
            if undeclared(&name, &text) {
                wrong.push(format!(
                    "{name}: a metric of ours is declared in telemetry.rs with `triptych_model::telemetry!`"
                ));
            }
            if lines > LINES_MAX && !text.contains("//! Longer than most:") {
                wrong.push(format!(
                    "{name}: {lines} lines; split it, or say why in a line `//! Longer than most: ..`"
                ));
            }
        }
    }
    Ok(wrong)
}

/// Counts with the facade itself, so that neither `/metrics` nor `docs/metrics.md` would say what it means.
fn undeclared(name: &str, text: &str) -> bool {
    name.starts_with("crates/")
        && !name.starts_with("crates/dev/")
        && ["counter!(\"", "gauge!(\"", "histogram!(\"", "counter!(\n", "gauge!(\n", "histogram!(\n"]
            .iter()
            .any(|m| text.contains(m))
}

/// `crates/...`, `docs/...`, `proto/...`, `e2e/...`, `charts/...` between backticks, without placeholders.
fn named_paths(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|code| {
        ["crates/", "docs/", "proto/", "e2e/", "charts/", "docker/", "ui/"]
            .iter()
            .any(|p| code.starts_with(p))
            && code.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
            && !code.starts_with("ui/dist")
    })
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs" || e == "md") {
            files.push(path);
        }
    }
    Ok(())
}
