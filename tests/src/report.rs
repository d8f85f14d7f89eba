//! What benchmarks have in common: figures, and how they are printed.

use std::{fmt::Display, path::PathBuf};

/// Clock ticks a second in /proc (proc(5): USER_HZ, 100 on every Linux of our targets).
const TICKS: f64 = 100.0;

/// A number from the environment.
pub fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

/// A program of the same build as the benchmark that asks for it.
pub fn program(name: &str) -> PathBuf {
    // Beside deps/, where benchmarks are.
    let here = std::env::current_exe().unwrap();
    let program = here.parent().unwrap().parent().unwrap().join(name);
    assert!(
        program.is_file(),
        "{} is not there: cargo build --release --workspace --bin {name}",
        program.display()
    );
    program
}

/// One line of a table of figures against targets.
pub fn row(figure: impl Display, measured: String, target: &str, met: bool) {
    let met = if met { "met" } else { "missed" };
    println!("| {figure} | {measured} | {target} | {met} |");
}

/// The middle of some values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

fn proc(pid: u32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Seconds of user and system time of a process, of its reaped children too.
pub fn cpu(pid: u32) -> f64 {
    let stat = proc(pid, "stat");
    // The name, in brackets, may hold anything. Then state is field 3, utime 14, cstime 17.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks: f64 = fields[11..15]
        .iter()
        .map(|field| field.parse::<f64>().unwrap())
        .sum();
    ticks / TICKS
}

/// A figure of /proc/PID/status, in MiB.
pub fn memory(pid: u32, name: &str) -> f64 {
    let status = proc(pid, "status");
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<f64>().unwrap() / 1024.0
}

/// Date, processor, load, and the versions of some programs.
pub async fn machine(programs: &[&str]) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value
            .map_or("unknown", |(_, value)| value.trim())
            .to_owned()
    };
    let has = |flag: &str| field("flags").split(' ').any(|have| have == flag);
    let sha = if has("sha_ni") { "with" } else { "without" };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let date = crate::run_ok("date", &["-u", "+%F"], b"").await;
    let mut text = format!(
        "{}; {cores} cores of {}, {sha} SHA instructions; load {load}",
        date.trim(),
        field("model name"),
    );
    for program in programs {
        let output = crate::run(program, &["--version"], b"").await;
        let version = format!("{}{}", output.stdout, output.stderr);
        text.push('\n');
        text.push_str(version.lines().next().unwrap_or_default().trim());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
