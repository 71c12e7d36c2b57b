//! What the operating system counts of this process, under the names that
//! Prometheus' client libraries have for it. Without `/proc` there is none of it.

use std::fs;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Of the clock that `/proc` counts in; the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

type Float = Gauge<f64, AtomicU64>;

pub(super) struct ProcessMetrics {
    registry: Registry,
    cpu: Counter<f64, AtomicU64>,
    resident: Gauge,
    virtual_memory: Gauge,
    threads: Gauge,
    open_files: Gauge,
    most_files: Gauge,
    start: Float,
}

// === impl ProcessMetrics ===

impl Default for ProcessMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("process");
        let metrics = Self {
            cpu: Counter::default(),
            resident: Gauge::default(),
            virtual_memory: Gauge::default(),
            threads: Gauge::default(),
            open_files: Gauge::default(),
            most_files: Gauge::default(),
            start: Float::default(),
            registry: Registry::default(),
        };
        registry.register("cpu_seconds", "Processor time, of all threads", metrics.cpu.clone());
        registry.register("resident_memory_bytes", "Memory that is in use", metrics.resident.clone());
        registry.register("virtual_memory_bytes", "Memory that is addressed", metrics.virtual_memory.clone());
        registry.register("threads", "Threads of the process", metrics.threads.clone());
        registry.register("open_fds", "Open files and sockets", metrics.open_files.clone());
        registry.register("max_fds", "Files and sockets that may be open", metrics.most_files.clone());
        registry.register("start_time_seconds", "Unix time of the process's start", metrics.start.clone());
        Self { registry, ..metrics }
    }
}

impl ProcessMetrics {
    /// As it is now.
    pub(super) fn read(&self) -> &Registry {
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            self.cpu.inc_by((stat.cpu - self.cpu.get()).max(0.0));
            if self.start.get() == 0.0
                && let Some(booted) = booted()
            {
                self.start.set(booted + stat.since_boot);
            }
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (gauge, name, unit) in
            [(&self.resident, "VmRSS", 1024), (&self.virtual_memory, "VmSize", 1024), (&self.threads, "Threads", 1)]
        {
            if let Some(value) = field(&status, name) {
                gauge.set(value * unit);
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // One of them is the folder's own.
            self.open_files.set(files.count() as i64 - 1);
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let most = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        if let Some(most) = most.and_then(|rest| rest.split_whitespace().next()?.parse().ok()) {
            self.most_files.set(most);
        }
        &self.registry
    }
}

/// In seconds.
struct Stat {
    cpu: f64,
    since_boot: f64,
}

// === impl Stat ===

impl Stat {
    /// Of `proc(5)`'s line: the name of the program comes second, and may hold anything.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |number: usize| Some(fields.get(number - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Self { cpu: ticks(14)? + ticks(15)?, since_boot: ticks(22)? })
    }
}

/// Unix time, in seconds.
fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

fn field(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}
