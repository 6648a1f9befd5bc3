//! Small programs to run as containers in tests and in the demo: `beaufort testbed WHAT ARGUMENT`. The static binary itself is the
//! image, so no registry is needed.

pub mod logfiles;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::exit;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

const USAGE: &str = "testbed exit CODE | sleep SECONDS | print LINES [WIDTH] | drip LINES MILLISECONDS | say TEXT | spin MILLICORES | hold MEBIBYTES | http PORT | ignore-term | write-logs DIRECTORY FILES LINES LINES-A-SECOND";

pub fn run(arguments: &[String]) -> ! {
    let what = arguments.first().map_or("", String::as_str);
    let argument = arguments.get(1).map_or("", String::as_str);
    if what == "ignore-term" {
        block_term();
        println!("ignoring SIGTERM");
        forever()
    }
    leave_on_term();
    let code = match what {
        "exit" => number(argument),
        "sleep" => {
            std::thread::sleep(Duration::from_millis((argument.parse::<f64>().unwrap_or(0.0) * 1000.0) as u64));
            0
        }
        "print" => print(number(argument), arguments.get(2).map_or(0, |w| number(w))),
        "drip" => drip(number(argument), arguments.get(2).map_or(0, |ms| number(ms))),
        "say" => {
            print!("{argument}");
            i64::from(io::stdout().flush().is_err())
        }
        "spin" => spin(number(argument)),
        "hold" => {
            let held = vec![1u8; number(argument) as usize * 1024 * 1024];
            println!("holding {} bytes", held.len());
            std::hint::black_box(&held);
            forever()
        }
        "http" => serve(number(argument)),
        "write-logs" => match crate::bench::follower::write(&arguments[1..]) {
            Ok(took) => {
                println!("{took}");
                0
            }
            Err(error) => {
                eprintln!("{error}\n{USAGE}");
                74
            }
        },
        _ => {
            eprintln!("{USAGE}");
            64
        }
    };
    exit(code as i32)
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| {
        eprintln!("{text:?} is no number\n{USAGE}");
        exit(64)
    })
}

fn block_term() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    if signals.thread_block().is_err() {
        exit(70);
    }
}

/// PID 1 has no default action for SIGTERM, so one thread waits for it.
fn leave_on_term() {
    block_term();
    std::thread::spawn(|| {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        if signals.wait().is_ok() {
            exit(0);
        }
    });
}

fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn print(lines: i64, width: i64) -> i64 {
    let mut out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let filler = "x".repeat(width.clamp(0, 1 << 20) as usize);
    for line in 1..=lines {
        if writeln!(out, "line {line} {filler}").is_err() {
            return 1;
        }
    }
    i64::from(out.flush().is_err())
}

/// A line every so many milliseconds.
fn drip(lines: i64, every_ms: i64) -> i64 {
    for line in 1..=lines {
        println!("line {line}");
        std::thread::sleep(Duration::from_millis(every_ms.unsigned_abs()));
    }
    0
}

/// Keeps `millicores` / 1,000 of a core busy, in slices of 10 ms; whole cores in threads of their own.
fn spin(millicores: i64) -> ! {
    for _ in 0..(millicores - 1).max(0) / 1000 {
        std::thread::spawn(|| busy_part(1000));
    }
    busy_part((millicores - 1).rem_euclid(1000) + 1)
}

fn busy_part(millicores: i64) -> ! {
    let slice = Duration::from_millis(10);
    let busy = slice * millicores as u32 / 1000;
    let mut due = Instant::now();
    loop {
        while due.elapsed() < busy {
            std::hint::spin_loop();
        }
        due += slice;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn serve(port: i64) -> i64 {
    let listener = match TcpListener::bind(("0.0.0.0", port as u16)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("port {port}: {error}");
            return 1;
        }
    };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    println!("listening on {port}");
    for connection in listener.incoming().flatten() {
        // One bad client is no reason to end.
        let _ = answer(connection, host.trim());
    }
    0
}

fn answer(mut connection: TcpStream, host: &str) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = [0; 4096];
    let size = connection.read(&mut request)?;
    let line = String::from_utf8_lossy(&request[..size]).lines().next().unwrap_or_default().to_owned();
    println!("{line}");
    let body = format!("hello from {host}\n");
    write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
