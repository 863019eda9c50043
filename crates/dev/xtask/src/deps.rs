//! Dependencies: licences that fit Apache-2.0, and nothing twice without a reason.

use std::collections::BTreeMap;

use crate::metadata::Metadata;

/// Licences whose code may be part of the binary.
const LICENCES: [&str; 14] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unicode-3.0",
    "CC0-1.0",
    "Unlicense",
    "CDLA-Permissive-2.0",
    "BSL-1.0",
];

/// Weak copyleft of single files, used unchanged.
const LICENCES_WITH_REASON: [(&str, &str); 1] = [("MPL-2.0", "files used unchanged")];

/// Crates that nobody maintains, or that we decided against (docs/ARCHITECTURE.md, dependencies).
const BANNED: [(&str, &str); 6] = [
    ("openssl-sys", "rustls with ring is the one TLS"),
    ("aws-lc-sys", "rustls with ring is the one TLS"),
    ("native-tls", "rustls with ring is the one TLS"),
    ("serde_yaml", "not maintained; serde-saphyr"),
    ("serde_yml", "not maintained; serde-saphyr"),
    ("protobuf", "prost is the one protobuf"),
];

/// Compiled twice in incompatible versions because of others; each says which. A new one is an error: look before adding it.
const TWICE: [&str; 18] = [
    // chitchat behind.
    "zstd",
    "zstd-safe",
    // s3s (tests) and the older half of the RustCrypto family.
    "base64",
    "block-buffer",
    "cpufeatures",
    "crypto-common",
    "digest",
    "sha1",
    // indexmap, moka and parquet each at their own pace.
    "foldhash",
    "hashbrown",
    "itertools",
    // proptest and tungstenite behind, ulid and object_store ahead.
    "getrandom",
    "r-efi",
    "rand",
    "rand_core",
    // Derive macros in the middle of the move to syn 3.
    "syn",
    // Only in tests' terminal output, only on Windows.
    "unicode-width",
    "windows-sys",
];

/// One alternative of an `OR` with every part of its `AND` allowed.
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let plain = expression.replace(['(', ')'], "");
    plain.split(" OR ").any(|alternative| {
        alternative.split(" AND ").all(|licence| {
            let licence = licence.trim();
            LICENCES.contains(&licence) || LICENCES_WITH_REASON.iter().any(|(l, _)| *l == licence)
        })
    })
}

fn major(version: &str) -> String {
    let mut parts = version.split('.');
    match (parts.next(), parts.next()) {
        (Some("0"), Some(minor)) => format!("0.{minor}"),
        (Some(major), _) => major.to_owned(),
        _ => version.to_owned(),
    }
}

pub fn check(metadata: &Metadata) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for package in metadata.foreign() {
        let (name, version) = (&package.name, &package.version);
        match &package.license {
            Some(licence) if allowed(licence) => {}
            licence => wrong.push(format!("{name} {version}: licence {licence:?} is not on the list")),
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| banned == name) {
            wrong.push(format!("{name} {version}: not here, {why}"));
        }
        let list = versions.entry(name).or_default();
        if !list.contains(&major(version)) {
            list.push(major(version));
        }
    }
    for (name, list) in versions.into_iter().filter(|(_, list)| list.len() > 1) {
        if !TWICE.contains(&name) {
            wrong.push(format!("{name} is there twice ({}): see `cargo tree -i {name}`", list.join(", ")));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences() {
        for yes in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "GPL-2.0 OR MIT",
        ] {
            assert!(allowed(yes), "{yes}");
        }
        for no in ["GPL-3.0", "AGPL-3.0-only", "MIT AND GPL-3.0", ""] {
            assert!(!allowed(no), "{no}");
        }
    }
}
