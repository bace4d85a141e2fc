//! The system calls of an init as a table.

use ima_testbed::report::FAULTS;
use ima_testbed::trace::TracedCall;

/// Returns the calls in a console.
///
/// # Errors
/// There are none, or the tracer did not get to its end.
pub fn calls(console: &str) -> Result<Vec<TracedCall>, String> {
    let said = |line: &str| Some(line.split_once(FAULTS)?.1.trim_end().to_owned());
    let said: Vec<String> = console.lines().filter_map(said).collect();
    let calls: Vec<TracedCall> = said.iter().filter_map(|line| line.parse().ok()).collect();
    let end = format!("{} calls until the handover", calls.len());
    if calls.is_empty() || !said.contains(&end) {
        return Err("the machine did not list the calls of its init".to_owned());
    }
    Ok(calls)
}

/// Returns nanoseconds as microseconds, without those that the tracer costs.
fn microseconds(time: u64, tracer: u64) -> f64 {
    time.saturating_sub(tracer) as f64 / 1000.0
}

/// Returns the calls as a table in Markdown. Of each time, the shortest between the first call and the last is taken off: what the
/// tracer costs.
pub fn table(calls: &[TracedCall]) -> String {
    // The call that hands over does not return, and the time before the first call is the kernel's.
    let inner = calls.get(1..calls.len().saturating_sub(1));
    let inner = inner.unwrap_or_default();
    let shortest = |time: fn(&TracedCall) -> u64| inner.iter().map(time).min().unwrap_or_default();
    let (before, within) = (shortest(|call| call.before), shortest(|call| call.within));
    let mut text =
        "| call | about | result | program, µs | call, µs |\n|---|---|---|---|---|\n".to_owned();
    let (mut program, mut kernel) = (0.0, 0.0);
    for call in calls {
        let times = [
            microseconds(call.before, before),
            microseconds(call.within, within),
        ];
        program += times[0];
        kernel += times[1];
        let about = match call.subject.as_str() {
            "" => String::new(),
            subject => format!("`{}`", subject.replace('|', "\\|")),
        };
        // An address says nothing.
        let result = match call.result {
            result @ ..0xffff_ffff => result.to_string(),
            _ => "address".to_owned(),
        };
        text += &format!(
            "| {} | {about} | {result} | {:.1} | {:.1} |\n",
            call.name, times[0], times[1]
        );
    }
    text + &format!(
        "| {} calls | | | {program:.1} | {kernel:.1} |\n",
        calls.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "4,1,1,-;ima-testbed faults: call getpid 900 1100 1 \r\n\
        4,1,1,-;ima-testbed faults: call openat 1500 4000 3 /proc/keys\r\n\
        4,2,2,-;ima-testbed faults: call mmap 1000 1000 140737353879552 \r\n4,3,3,-;ima-testbed faults: call execveat 1200 0 0 \r\n\
        4,3,3,-;ima-testbed faults: 4 calls until the handover\r\n";

    #[test]
    fn times_are_without_those_of_the_tracer() {
        let text = table(&calls(CONSOLE).expect("calls"));
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| getpid |  | 1 | 0.0 | 0.1 |",
                "| openat | `/proc/keys` | 3 | 0.5 | 3.0 |",
                "| mmap |  | address | 0.0 | 0.0 |",
                "| execveat |  | 0 | 0.2 | 0.0 |",
                "| 4 calls | | | 0.7 | 3.1 |"
            ]
        );
    }

    #[test]
    fn a_trace_without_its_end_is_an_error() {
        for without in ["4 calls until", "call mmap"] {
            let console = CONSOLE.replace(without, "x");
            assert!(calls(&console).is_err(), "{without}");
        }
    }
}
