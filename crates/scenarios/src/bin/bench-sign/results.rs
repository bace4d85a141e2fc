//! What the times say: rates, ratios, and the table.

use std::num::NonZero;
use std::time::Duration;

/// What a root file system has in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Content {
    /// How many regular files.
    pub files: usize,
    /// Their length in bytes, all together.
    pub bytes: u64,
}

impl Content {
    /// Returns the line above the tables.
    pub fn shown(self, cores: NonZero<usize>) -> String {
        let megabytes = self.bytes / 1_000_000;
        format!("{} files, {megabytes} MB, {cores} cores\n", self.files)
    }
}

/// How long a program ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// By the clock.
    pub clock: Duration,
    /// Processor time, user and system, on all cores.
    pub processor: Duration,
}

impl Times {
    /// Longer than anything that is measured.
    pub const MAX: Self = Self {
        clock: Duration::MAX,
        processor: Duration::MAX,
    };

    /// Returns the shorter time of two runs by the clock, and by the processor. They may be those of different runs.
    pub fn min(self, other: Self) -> Self {
        Self {
            clock: self.clock.min(other.clock),
            processor: self.processor.min(other.processor),
        }
    }
}

/// The best times with one kind of key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    /// `evmctl ima_sign -r`.
    pub evmctl: Times,
    /// `imactl sign`.
    pub sign: Times,
    /// `imactl sign --incremental`, where every file has its signature.
    pub incremental: Times,
    /// `imactl evmctl ima_hash -n`.
    pub hash: Times,
    /// The processor time for hashing as many bytes.
    pub raw_hashing: Duration,
    /// The processor time for signing as many digests.
    pub raw_signing: Duration,
}

impl Results {
    /// Returns the table, and the lines that compare with the raw work.
    pub fn table(&self, kind: &str, files: usize, cores: NonZero<usize>) -> String {
        let mut text = line([kind, "clock", "processor", "rate", "x clock", "x cpu"]);
        for (title, times) in [
            ("evmctl ima_sign -r", self.evmctl),
            ("imactl sign", self.sign),
            ("  --incremental", self.incremental),
            ("hash alone", self.hash),
        ] {
            text += &self.row(title, times, files);
        }
        let raw = self.raw_hashing + self.raw_signing;
        let ratio = Duration::div_duration_f64;
        text += &format!(
            "\nraw, by the processor: hashing {}, signing {}; imactl sign takes {:.2} times that\n",
            seconds(self.raw_hashing),
            seconds(self.raw_signing),
            ratio(self.sign.processor, raw)
        );
        text += &format!(
            "hashing takes {:.2} times the raw hashing; --incremental {:.2} times hashing\n",
            ratio(self.hash.processor, self.raw_hashing),
            ratio(self.incremental.processor, self.hash.processor)
        );
        text += &format!(
            "bound: the raw work on {cores} cores is done {:.0} times as fast as evmctl's\n",
            ratio(self.evmctl.processor, raw) * cores.get() as f64
        );
        text
    }

    /// Returns a row: times, rate, and how many times as fast as evmctl.
    fn row(&self, title: &str, times: Times, files: usize) -> String {
        let faster = |evmctl: Duration, time| format!("{:.1}", evmctl.div_duration_f64(time));
        line([
            title,
            &seconds(times.clock),
            &seconds(times.processor),
            &format!("{:.0}/s", files as f64 / times.clock.as_secs_f64()),
            &faster(self.evmctl.clock, times.clock),
            &faster(self.evmctl.processor, times.processor),
        ])
    }
}

fn line([title, clock, processor, rate, by_clock, by_processor]: [&str; 6]) -> String {
    format!("{title:<22} {clock:>9} {processor:>9} {rate:>12} {by_clock:>9} {by_processor:>9}\n")
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// Returns the bytes a second in the output of `openssl speed`, whose last line is `sha256` and a number of thousands: `1868.80k`.
pub fn hash_rate(output: &str) -> Option<f64> {
    let line = output.lines().find(|line| line.starts_with("sha256"))?;
    let thousands = line.split_whitespace().last()?.strip_suffix('k')?;
    let rate = thousands.parse::<f64>().ok()? * 1000.0;
    (rate.is_finite() && rate > 0.0).then_some(rate)
}

/// Returns so many different digests of SHA-256, each in hexadecimal on a line.
pub fn digests(count: usize) -> String {
    (0..count)
        .map(|digest| format!("{digest:064x}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(clock: u64, processor: u64) -> Times {
        Times {
            clock: Duration::from_millis(clock),
            processor: Duration::from_millis(processor),
        }
    }

    #[test]
    fn the_best_times_may_be_those_of_different_runs() {
        let runs = [times(30, 25), times(20, 40), times(50, 26)];
        let best = runs.into_iter().fold(Times::MAX, Times::min);
        assert_eq!(best, times(20, 25));
    }

    #[test]
    fn the_table_has_rates_and_ratios() {
        let results = Results {
            evmctl: times(8000, 6000),
            sign: times(1000, 1500),
            incremental: times(160, 300),
            hash: times(100, 150),
            raw_hashing: Duration::from_millis(75),
            raw_signing: Duration::from_millis(1125),
        };
        let cores = NonZero::new(2).unwrap();
        let expected = "\
rsa2048                    clock processor         rate   x clock     x cpu
evmctl ima_sign -r       8.000 s   6.000 s        625/s       1.0       1.0
imactl sign              1.000 s   1.500 s       5000/s       8.0       4.0
  --incremental          0.160 s   0.300 s      31250/s      50.0      20.0
hash alone               0.100 s   0.150 s      50000/s      80.0      40.0

raw, by the processor: hashing 0.075 s, signing 1.125 s; imactl sign takes 1.25 times that
hashing takes 2.00 times the raw hashing; --incremental 2.00 times hashing
bound: the raw work on 2 cores is done 10 times as fast as evmctl's
";
        assert_eq!(results.table("rsa2048", 5000, cores), expected);
    }

    #[test]
    fn the_content_is_shown_in_megabytes() {
        let content = Content {
            files: 5514,
            bytes: 166_999_999,
        };
        let shown = content.shown(NonZero::new(4).unwrap());
        assert_eq!(shown, "5514 files, 166 MB, 4 cores\n");
    }

    #[test]
    fn the_rate_of_openssl_is_in_thousands_of_bytes() {
        let output = "version: 3.0.17\nCPUINFO: OPENSSL_ia32cap=0xfe\n\
            The 'numbers' are in 1000s of bytes per second processed.\n\
            type         262144 bytes\nsha256         1868800.50k\n";
        assert_eq!(hash_rate(output), Some(1_868_800_500.0));
        for (old, new) in [
            ("sha256", "sha512"),
            (".50k", ".50"),
            ("1868800.50", ""),
            ("1868800.50", "0.00"),
            ("1868800.50", "inf"),
        ] {
            assert_eq!(hash_rate(&output.replace(old, new)), None, "{old} {new}");
        }
    }

    #[test]
    fn each_digest_has_64_digits_and_is_another() {
        let text = digests(300);
        let lines: std::collections::BTreeSet<&str> = text.lines().collect();
        assert_eq!(lines.len(), 300);
        for line in lines {
            let digits = line.bytes().filter(u8::is_ascii_hexdigit).count();
            assert_eq!((digits, line.len()), (64, 64), "{line}");
        }
    }
}
