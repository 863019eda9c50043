//! How much memory this process may use, as the machine says.

use std::path::Path;

/// Where nothing can be read.
const FALLBACK_BYTES: usize = 4 << 30;

/// The tightest limit of the cgroup this process is in and of those above it (version 2 and 1), or the machine's memory where that is
/// less, in bytes.
pub fn memory_limit_bytes() -> usize {
    read(Path::new("/"))
}

fn read(root: &Path) -> usize {
    let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = text("proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
    });
    let cgroups = text("proc/self/cgroup").unwrap_or_default();
    let limits = cgroups.lines().flat_map(|line| {
        // `0::/path` is version 2, `7:memory:/path` version 1. In a container the path is often that of the host, and what is mounted
        // is the container's own group: the directories that are not there are skipped, the mount's root is always looked at.
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|c| c == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let path = Path::new(path.trim_start_matches('/'));
        let groups = path.ancestors().map(|group| root.join(mount).join(group).join(file));
        groups.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).collect()
    });
    limits.chain(machine).min().unwrap_or(FALLBACK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], bytes: usize) {
        let root = std::env::temp_dir().join(format!("triptych-limit-{}-{bytes}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(read(&root), bytes, "{files:?}");
        let _ = std::fs::remove_dir_all(root);
    }

    #[test]
    fn the_tightest_counts() {
        const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n");
        check(&[], FALLBACK_BYTES);
        check(&[MEMINFO], 1_024_000);
        // Version 2, nested: no limit of its own, one above.
        let nested = [
            MEMINFO,
            ("proc/self/cgroup", "0::/a.slice/b.scope\n"),
            ("sys/fs/cgroup/a.slice/b.scope/memory.max", "max\n"),
            ("sys/fs/cgroup/a.slice/memory.max", "2000\n"),
        ];
        check(&nested, 2000);
        // In a container: the host's path does not exist, the mount's root is the group.
        let container = [("proc/self/cgroup", "0::/../../pod\n"), ("sys/fs/cgroup/memory.max", "3000\n")];
        check(&container, 3000);
        // Version 1, with version 2 beside it for other controllers.
        let v1 = [
            ("proc/self/cgroup", "7:cpu,memory:/x\n3:pids:/x\n0::/\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "4000"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ];
        check(&v1, 4000);
        // A limit above what the machine has is none.
        check(
            &[MEMINFO, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "99999999")],
            1_024_000,
        );
    }

    #[test]
    fn this_machine_has_some() {
        assert!(memory_limit_bytes() > 64 << 20);
    }
}
