//! Host metrics from `/proc`, under the names that node_exporter gave them, so that its dashboards work.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use procfs::{Current, CurrentSI, KernelStats, LoadAverage};
use triptych_model::Labels;
use triptych_model::batch::MetricsBuilder;
use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::{MetricKind, Sample};
use triptych_rpc::{Write, WriteContext};
use triptych_runtime::now_ms;

use crate::telemetry;

/// Sectors of `/proc/diskstats` have this size whatever the disk's.
const SECTOR_BYTES: f64 = 512.0;

/// File systems that hold no files of anybody.
const PSEUDO: [&str; 26] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
    "ramfs",
];

/// Collects once and writes; what cannot be written is left to the next time.
pub async fn collect_and_write(write: Arc<dyn Write>, ctx: WriteContext, node: String) {
    let collected = triptych_runtime::blocking(move || {
        let mut out = Collector::new(node, now_ms());
        collect(&mut out);
        out.batch
    });
    let Ok(batch) = collected.await else { return };
    if let Err(error) = write.metrics(&ctx, batch).await {
        telemetry::lost_host_metrics().increment(1);
        tracing::debug!(%error, "host metrics could not be written");
    }
}

struct Collector {
    batch: MetricsBuilder,
    described: HashSet<String>,
    node: String,
    at_ms: i64,
}

impl Collector {
    fn new(node: String, at_ms: i64) -> Self {
        Self { batch: MetricsBuilder::default(), described: HashSet::new(), node, at_ms }
    }

    fn add(&mut self, name: &str, kind: MetricKind, labels: &[(&str, &str)], value: f64) {
        let own = [(METRIC_NAME, name), ("job", "node"), ("instance", self.node.as_str())];
        let labels = Labels::from_pairs(own.iter().chain(labels).copied());
        self.batch.series(labels.hash64(), labels.as_encoded(), &[Sample { t_ms: self.at_ms, value }]);
        if self.described.insert(name.to_owned()) {
            self.batch.metadata(name, kind, "", "");
        }
    }

    fn gauge(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.add(name, MetricKind::Gauge, labels, value);
    }

    fn counter(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.add(name, MetricKind::Counter, labels, value);
    }
}

/// A part that this kernel or container does not show is left out; the others come all the same.
fn collect(out: &mut Collector) {
    out.gauge("up", &[], 1.0);
    out.gauge("node_time_seconds", &[], out.at_ms as f64 / 1e3);
    kernel(out);
    if let Ok(text) = std::fs::read_to_string("/proc/meminfo") {
        memory(&text, out);
    }
    if let Ok(load) = LoadAverage::current() {
        out.gauge("node_load1", &[], f64::from(load.one));
        out.gauge("node_load5", &[], f64::from(load.five));
        out.gauge("node_load15", &[], f64::from(load.fifteen));
    }
    disks(out);
    network(out);
    file_systems(out);
    for resource in ["cpu", "io", "memory"] {
        if let Ok(text) = std::fs::read_to_string(format!("/proc/pressure/{resource}")) {
            pressure(resource, &text, out);
        }
    }
    if let Ok(vmstat) = procfs::vmstat() {
        for name in ["pgfault", "pgmajfault", "pgpgin", "pgpgout", "pswpin", "pswpout", "oom_kill"] {
            if let Some(value) = vmstat.get(name) {
                out.counter(&format!("node_vmstat_{name}"), &[], *value as f64);
            }
        }
    }
    if let Ok(files) = procfs::sys::fs::file_nr() {
        out.gauge("node_filefd_allocated", &[], files.allocated as f64);
        out.gauge("node_filefd_maximum", &[], files.max as f64);
    }
    uname(out);
}

fn kernel(out: &mut Collector) {
    let Ok(stats) = KernelStats::current() else { return };
    let ticks = procfs::ticks_per_second() as f64;
    for (number, time) in stats.cpu_time.iter().enumerate() {
        let cpu = number.to_string();
        let modes = [
            ("user", Some(time.user)),
            ("nice", Some(time.nice)),
            ("system", Some(time.system)),
            ("idle", Some(time.idle)),
            ("iowait", time.iowait),
            ("irq", time.irq),
            ("softirq", time.softirq),
            ("steal", time.steal),
        ];
        for (mode, value) in modes {
            if let Some(value) = value {
                out.counter("node_cpu_seconds_total", &[("cpu", &cpu), ("mode", mode)], value as f64 / ticks);
            }
        }
    }
    out.counter("node_context_switches_total", &[], stats.ctxt as f64);
    out.counter("node_forks_total", &[], stats.processes as f64);
    out.gauge("node_boot_time_seconds", &[], stats.btime as f64);
    if let Some(running) = stats.procs_running {
        out.gauge("node_procs_running", &[], f64::from(running));
    }
    if let Some(blocked) = stats.procs_blocked {
        out.gauge("node_procs_blocked", &[], f64::from(blocked));
    }
}

/// Every line of `/proc/meminfo`: `MemFree: 12 kB` is `node_memory_MemFree_bytes`, `Active(anon)` is `Active_anon`.
fn memory(text: &str, out: &mut Collector) {
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let mut words = rest.split_whitespace();
        let Some(value) = words.next().and_then(|v| v.parse::<f64>().ok()) else { continue };
        let name = name.replace('(', "_").replace(')', "");
        match words.next() {
            Some("kB") => out.gauge(&format!("node_memory_{name}_bytes"), &[], value * 1024.0),
            _ => out.gauge(&format!("node_memory_{name}"), &[], value),
        }
    }
}

fn disks(out: &mut Collector) {
    let Ok(disks) = procfs::diskstats() else { return };
    for disk in disks.iter().filter(|d| !["ram", "loop", "zram"].iter().any(|p| d.name.starts_with(p))) {
        let device = [("device", disk.name.as_str())];
        let ms = |value: u64| value as f64 / 1e3;
        out.counter("node_disk_reads_completed_total", &device, disk.reads as f64);
        out.counter("node_disk_read_bytes_total", &device, disk.sectors_read as f64 * SECTOR_BYTES);
        out.counter("node_disk_read_time_seconds_total", &device, ms(disk.time_reading));
        out.counter("node_disk_writes_completed_total", &device, disk.writes as f64);
        out.counter("node_disk_written_bytes_total", &device, disk.sectors_written as f64 * SECTOR_BYTES);
        out.counter("node_disk_write_time_seconds_total", &device, ms(disk.time_writing));
        out.gauge("node_disk_io_now", &device, disk.in_progress as f64);
        out.counter("node_disk_io_time_seconds_total", &device, ms(disk.time_in_progress));
        out.counter("node_disk_io_time_weighted_seconds_total", &device, ms(disk.weighted_time_in_progress));
    }
}

fn network(out: &mut Collector) {
    let Ok(devices) = procfs::net::dev_status() else { return };
    for status in devices.values() {
        let device = [("device", status.name.as_str())];
        for (name, value) in [
            ("receive_bytes", status.recv_bytes),
            ("receive_packets", status.recv_packets),
            ("receive_errs", status.recv_errs),
            ("receive_drop", status.recv_drop),
            ("transmit_bytes", status.sent_bytes),
            ("transmit_packets", status.sent_packets),
            ("transmit_errs", status.sent_errs),
            ("transmit_drop", status.sent_drop),
        ] {
            out.counter(&format!("node_network_{name}_total"), &device, value as f64);
        }
    }
}

fn file_systems(out: &mut Collector) {
    let Ok(mounts) = procfs::mounts() else { return };
    let mut seen = HashSet::new();
    for mount in mounts.iter().filter(|m| !PSEUDO.contains(&m.fs_vfstype.as_str()) || m.fs_file == "/") {
        if !seen.insert(mount.fs_file.clone()) {
            continue;
        }
        let Ok(stat) = rustix::fs::statvfs(Path::new(&mount.fs_file)) else { continue };
        let labels = [
            ("device", mount.fs_spec.as_str()),
            ("fstype", mount.fs_vfstype.as_str()),
            ("mountpoint", mount.fs_file.as_str()),
        ];
        let block = stat.f_frsize as f64;
        out.gauge("node_filesystem_size_bytes", &labels, stat.f_blocks as f64 * block);
        out.gauge("node_filesystem_free_bytes", &labels, stat.f_bfree as f64 * block);
        out.gauge("node_filesystem_avail_bytes", &labels, stat.f_bavail as f64 * block);
        out.gauge("node_filesystem_files", &labels, stat.f_files as f64);
        out.gauge("node_filesystem_files_free", &labels, stat.f_ffree as f64);
        let readonly = stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
        out.gauge("node_filesystem_readonly", &labels, f64::from(u8::from(readonly)));
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345` (microseconds).
fn pressure(resource: &str, text: &str, out: &mut Collector) {
    for line in text.lines() {
        let kind = match (line.split_whitespace().next(), resource) {
            (Some("some"), _) => "waiting",
            (Some("full"), "io" | "memory") => "stalled",
            _ => continue,
        };
        let total = line.rsplit_once("total=").and_then(|(_, v)| v.trim().parse::<f64>().ok());
        if let Some(total) = total {
            out.counter(&format!("node_pressure_{resource}_{kind}_seconds_total"), &[], total / 1e6);
        }
    }
}

fn uname(out: &mut Collector) {
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/sys/kernel/{name}"))
            .map(|s| s.trim().to_owned())
            .unwrap_or_default()
    };
    let (release, version, host, system) =
        (read("osrelease"), read("version"), read("hostname"), read("ostype"));
    let labels = [
        ("release", release.as_str()),
        ("version", version.as_str()),
        ("nodename", host.as_str()),
        ("sysname", system.as_str()),
        ("machine", std::env::consts::ARCH),
    ];
    out.gauge("node_uname_info", &labels, 1.0);
}

#[cfg(test)]
mod tests {
    use triptych_model::batch::{MetricsReader, MetricsRecord};

    use super::*;

    fn names(out: &Collector) -> Vec<(String, f64)> {
        let records = MetricsReader::new(out.batch.plain()).unwrap().map(Result::unwrap);
        records
            .filter_map(|r| match r {
                MetricsRecord::Series { labels, samples, .. } => {
                    let labels = Labels::from_encoded(labels).unwrap();
                    assert_eq!((labels.value("job"), labels.value("instance")), ("node", "n"));
                    Some((labels.value(METRIC_NAME).to_owned(), samples.iter().next().unwrap().value))
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn this_machine_has_what_dashboards_need() {
        let mut out = Collector::new("n".into(), now_ms());
        collect(&mut out);
        let found = names(&out);
        for name in [
            "up",
            "node_cpu_seconds_total",
            "node_memory_MemTotal_bytes",
            "node_memory_MemAvailable_bytes",
            "node_load1",
            "node_boot_time_seconds",
            "node_network_receive_bytes_total",
            "node_uname_info",
            "node_filesystem_size_bytes",
        ] {
            assert!(found.iter().any(|(n, _)| n == name), "{name} is missing");
        }
    }

    #[test]
    fn memory_names() {
        let mut out = Collector::new("n".into(), 0);
        memory("MemFree:   2 kB\nActive(anon): 1 kB\nHugePages_Total: 7\nrubbish\n", &mut out);
        let expected = [
            ("node_memory_MemFree_bytes".to_owned(), 2048.0),
            ("node_memory_Active_anon_bytes".to_owned(), 1024.0),
            ("node_memory_HugePages_Total".to_owned(), 7.0),
        ];
        assert_eq!(names(&out), expected);
    }

    #[test]
    fn pressure_names() {
        let mut out = Collector::new("n".into(), 0);
        pressure("io", "some avg10=0.00 total=2000000\nfull avg10=0 total=1000000\n", &mut out);
        let expected = [
            ("node_pressure_io_waiting_seconds_total".to_owned(), 2.0),
            ("node_pressure_io_stalled_seconds_total".to_owned(), 1.0),
        ];
        assert_eq!(names(&out), expected);
    }
}
