use std::path::Path;
use std::process::Command;

use ima::elf::Dynamic;
use proptest::prelude::*;

use super::files::absolute;
use super::*;

const GLIBC: &str = "/lib64/ld-linux-x86-64.so.2";
const MUSL: &str = "/lib/ld-musl-x86_64.so.1";

/// An ELF file that a loader can map and that does nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Made {
    interpreter: Option<String>,
    needed: Vec<String>,
    soname: Option<String>,
    rpath: Option<String>,
    runpath: Option<String>,
    narrow: bool,
    machine: Option<u16>,
}

impl Made {
    pub(crate) fn library() -> Self {
        Self::default()
    }

    pub(crate) fn program(interpreter: &str) -> Self {
        Self {
            interpreter: Some(interpreter.to_owned()),
            ..Self::default()
        }
    }

    pub(crate) fn needs(mut self, name: &str) -> Self {
        self.needed.push(name.to_owned());
        self
    }

    pub(crate) fn soname(mut self, name: &str) -> Self {
        self.soname = Some(name.to_owned());
        self
    }

    pub(crate) fn rpath(mut self, list: &str) -> Self {
        self.rpath = Some(list.to_owned());
        self
    }

    pub(crate) fn runpath(mut self, list: &str) -> Self {
        self.runpath = Some(list.to_owned());
        self
    }

    /// For i386.
    pub(crate) fn narrow(mut self) -> Self {
        self.narrow = true;
        self
    }

    /// One segment that is mapped whole, the dynamic section in it, and the interpreter.
    pub(crate) fn build(&self) -> Vec<u8> {
        let wide = !self.narrow;
        let word = if wide { 8 } else { 4 };
        let (header, segment) = if wide { (64, 56) } else { (52, 32) };
        let count = 2 + usize::from(self.interpreter.is_some());
        let mut strings = vec![0];
        let mut dynamic: Vec<(u64, u64)> = Vec::new();
        let mut string = |text: &str| {
            let at = strings.len() as u64;
            strings.extend(text.as_bytes());
            strings.push(0);
            at
        };
        for name in &self.needed {
            dynamic.push((1, string(name)));
        }
        for (tag, text) in [(14, &self.soname), (15, &self.rpath), (29, &self.runpath)] {
            if let Some(text) = text {
                dynamic.push((tag, string(text)));
            }
        }
        let interpreter = self.interpreter.as_deref().map(&mut string);
        let strings_at = (header + count * segment) as u64;
        // A hash table of one bucket without a symbol, and a table of symbols with the empty one.
        let hash_at = (strings_at + strings.len() as u64).next_multiple_of(16);
        let symbols_at = hash_at + 16;
        let dynamic_at = symbols_at + 32;
        dynamic.extend([
            (4, hash_at),
            (5, strings_at),
            (10, strings.len() as u64),
            (6, symbols_at),
            (11, if wide { 24 } else { 16 }),
            (0, 0),
        ]);
        let dynamic_length = (dynamic.len() * 2 * word) as u64;
        let end = dynamic_at + dynamic_length;
        let mut file = Vec::new();
        let put = |file: &mut Vec<u8>, value: u64, length: usize| {
            file.extend(&value.to_le_bytes()[..length]);
        };
        file.extend(b"\x7fELF");
        file.extend([if wide { 2 } else { 1 }, 1, 1]);
        file.resize(16, 0);
        let machine = self.machine.unwrap_or(if wide { 62 } else { 3 });
        put(&mut file, 3, 2);
        put(&mut file, u64::from(machine), 2);
        put(&mut file, 1, 4);
        for value in [0, header as u64, 0] {
            put(&mut file, value, word);
        }
        put(&mut file, 0, 4);
        for value in [header, segment, count, 0, 0, 0] {
            put(&mut file, value as u64, 2);
        }
        let mut segment = |kind: u64, flags: u64, at: u64, length: u64, align: u64| {
            let rest = [at, at, at, length, length];
            put(&mut file, kind, 4);
            if wide {
                put(&mut file, flags, 4);
            }
            for value in rest {
                put(&mut file, value, word);
            }
            if !wide {
                put(&mut file, flags, 4);
            }
            put(&mut file, align, word);
        };
        if let (Some(at), Some(name)) = (interpreter, &self.interpreter) {
            segment(3, 4, strings_at + at, name.len() as u64 + 1, 1);
        }
        segment(1, 6, 0, end, 4096);
        segment(2, 6, dynamic_at, dynamic_length, word as u64);
        file.extend(&strings);
        file.resize(hash_at as usize, 0);
        file.extend([1, 0, 0, 0, 1, 0, 0, 0]);
        file.resize(dynamic_at as usize, 0);
        for (tag, value) in dynamic {
            put(&mut file, tag, word);
            put(&mut file, value, word);
        }
        file
    }
}

/// The same numbers for the same seed, on every machine.
struct Numbers(u64);

impl Numbers {
    fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, limit: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

const NAMES: [&str; 6] = [
    "liba.so.1",
    "libb.so.1",
    "libc.so.9",
    "libd.so.1",
    "libe.so.1",
    "libf.so.1",
];
const LISTS: [&str; 9] = [
    "/opt/a",
    "/opt/b:/opt/a",
    "$ORIGIN",
    "${ORIGIN}/../b",
    "$ORIGIN/../$LIB:/opt/b/",
    "/opt/$PLATFORM",
    "/opt/c:",
    "opt/b",
    "/opt/$ORIGINAL:/opt/a",
];

fn put(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// A root with libraries of every kind in directories of every kind, and the program `/bin/prog`.
fn generate(root: &Path, numbers: &mut Numbers, directories: &[&str], musl: bool) {
    let links = |made: Made, numbers: &mut Numbers| {
        let mut made = made;
        for _ in 0..numbers.below(3) {
            made = if numbers.chance(8) {
                let prefix = numbers.pick(&["/opt/a", "$ORIGIN", "opt/b", "/opt/$LIB"]);
                made.needs(&format!("{prefix}/{}", numbers.pick(&NAMES)))
            } else {
                made.needs(numbers.pick(&NAMES))
            };
        }
        if numbers.chance(25) {
            made = made.rpath(numbers.pick(&LISTS));
        }
        if numbers.chance(25) {
            made = made.runpath(numbers.pick(&LISTS));
        }
        made
    };
    for directory in directories {
        for name in NAMES {
            if !numbers.chance(35) {
                continue;
            }
            let path = format!("{directory}/{name}");
            let mut made = links(Made::library(), numbers);
            match numbers.below(20) {
                0 | 1 => made = made.narrow(),
                2 if !musl => made.machine = Some(183),
                3 if numbers.chance(20) => {
                    put(root, &path, "text");
                    continue;
                }
                4 if numbers.chance(20) => {
                    std::fs::create_dir_all(root.join(&path)).unwrap();
                    continue;
                }
                5 => {
                    let target = format!("/opt/b/{}", numbers.pick(&NAMES));
                    std::fs::create_dir_all(root.join(directory)).unwrap();
                    std::os::unix::fs::symlink(target, root.join(&path)).unwrap();
                    continue;
                }
                _ => {}
            }
            if numbers.chance(70) {
                made = made.soname(name);
            } else if numbers.chance(20) {
                made = made.soname(numbers.pick(&NAMES));
            }
            put(root, &path, made.build());
        }
    }
    let loader = if musl { MUSL } else { GLIBC };
    let mut program = Made::program(loader);
    for name in NAMES {
        if numbers.chance(40) {
            program = program.needs(name);
        }
    }
    put(root, "bin/prog", links(program, numbers).build());
    let host = if musl {
        "/lib/x86_64-linux-musl/libc.so"
    } else {
        GLIBC
    };
    let own = std::fs::read(host).unwrap_or_else(|error| panic!("{host}: {error}"));
    put(root, loader, own);
    for program in ["bin/prog", loader] {
        let path = root.join(program.trim_start_matches('/'));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    }
}

/// What the loader itself lists: the paths, the names that it does not find, and whether it gave up.
fn listed(root: &Path, loader: &str) -> (Vec<String>, Vec<String>, bool) {
    let uid = Command::new("id").arg("-u").output().unwrap().stdout;
    assert_eq!(uid, b"0\n", "this test changes root and must run as root");
    // As ldd does it. chroot(1) would be traced itself, and --list ends at the first library that is missing.
    let script = r#"chroot shift or die; chdir "/"; $ENV{LD_TRACE_LOADED_OBJECTS} = 1; exec @ARGV"#;
    let arguments: &[&str] = if loader == MUSL {
        &[MUSL, "--list", "/bin/prog"]
    } else {
        &[GLIBC, "/bin/prog"]
    };
    let ended = Command::new("perl")
        .args(["-e", script])
        .arg(root)
        .args(arguments)
        .env_clear()
        .output()
        .expect("perl");
    let output = text(&ended.stdout);
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code().is_some(), "{:?}", ended.status);
    let (mut paths, mut missing) = (Vec::new(), Vec::new());
    for line in output.lines() {
        let line = line.trim();
        let place = line.split(" => ").last().unwrap_or(line);
        if place == "not found" {
            missing.extend(line.split(" => ").next().map(str::to_owned));
        } else if let Some(path) = place.split(" (0x").next()
            && path != loader
            && !path.starts_with("linux-vdso")
            && path != "statically linked"
        {
            paths.push(text(&absolute(path.as_bytes())));
        }
    }
    for line in error.lines() {
        if let Some(name) = line
            .strip_prefix("Error loading shared library ")
            .and_then(|line| line.split(": ").next())
        {
            missing.push(name.to_owned());
        }
    }
    let gave_up = error.contains("error while loading shared libraries");
    (paths, missing, gave_up)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The processor of this machine, by what its loader says.
fn own_processor() -> String {
    let says = |option: &str| {
        let ended = Command::new(GLIBC).arg(option).output().unwrap();
        text(&ended.stdout)
    };
    let help = says("--help");
    let level = help
        .lines()
        .find(|line| line.contains("x86-64-v") && line.contains("(supported"))
        .and_then(|line| line.split_whitespace().next())
        .unwrap_or("x86_64");
    let by_intel = says("--list-diagnostics").contains("dl_platform=\"haswell\"");
    format!("{level}{}", if by_intel { " by Intel" } else { "" })
}

/// Compares, and gives how many libraries were found and how many programs cannot run.
fn compare(root: &Path, loader: &str, processor: &str) -> (usize, usize) {
    let (paths, missing, gave_up) = listed(root, loader);
    let source = crate::image::read(root).unwrap();
    let mut loaders = Loaders::new(&source.tree);
    let resolutions = loaders.resolve(b"/bin/prog");
    let own = resolutions.iter().find(|found| {
        let found = found.processor.as_deref();
        found.is_none_or(|found| found == processor)
    });
    let mut shown = format!("the loader: {paths:?}, missing {missing:?}, gave up: {gave_up}");
    for one in &resolutions {
        shown += &format!("\n{:?}:", one.processor);
        for library in &one.libraries {
            shown += &format!(" {}", text(&library.path));
        }
        for failure in &one.failures {
            shown += &format!(" !{} for {}", text(&failure.name), text(&failure.by));
        }
    }
    let own = own.unwrap_or_else(|| panic!("{shown}"));
    if gave_up {
        let unusable = own.failures.iter().any(|one| one.unusable.is_some());
        assert!(unusable, "{shown}");
        return (0, 1);
    }
    let libraries: Vec<String> = own.libraries.iter().map(|one| text(&one.path)).collect();
    assert_eq!(libraries, paths, "{shown}");
    let mut failures: Vec<String> = own.failures.iter().map(|one| text(&one.name)).collect();
    let mut missing = missing;
    for names in [&mut failures, &mut missing] {
        names.sort();
        names.dedup();
    }
    assert_eq!(failures, missing, "{shown}");
    (paths.len(), usize::from(!missing.is_empty()))
}

#[test]
fn glibc_finds_what_ld_so_lists() {
    let directories = [
        "lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3",
        "lib",
        "lib64",
        "usr/lib",
        "usr/local/lib",
        "opt/a",
        "opt/a/glibc-hwcaps/x86-64-v2",
        "opt/a/glibc-hwcaps/x86-64-v4",
        "opt/a/tls/x86_64",
        "opt/b",
        "opt/b/haswell",
        "opt/b/avx512_1/x86_64",
        "opt/haswell",
        "opt/lib/x86_64-linux-gnu",
    ];
    let processor = own_processor();
    let (mut found, mut failed, mut caches) = (0, 0, 0);
    for seed in 1..=200 {
        let mut numbers = Numbers::seeded(seed);
        let root = tempfile::tempdir().unwrap();
        // Each root has some of the directories.
        let some: Vec<&str> = directories
            .into_iter()
            .filter(|_| numbers.chance(50))
            .collect();
        generate(root.path(), &mut numbers, &some, false);
        put(root.path(), "etc/ld.so.conf", "/opt/b\n/usr/local/lib\n");
        if numbers.chance(50) {
            let format = numbers.pick(&["new", "compat", "old"]);
            let ended = Command::new("/sbin/ldconfig")
                .args(["-X", "-c", format, "-r"])
                .arg(root.path())
                .output()
                .expect("ldconfig");
            // ldconfig of glibc 2.36 aborts on some of these files.
            caches += usize::from(ended.status.success());
            if numbers.chance(30) {
                let _ = std::fs::remove_file(root.path().join("opt/b").join(numbers.pick(&NAMES)));
            }
        }
        if numbers.chance(10) {
            let name = numbers.pick(&NAMES);
            put(
                root.path(),
                "etc/ld.so.preload",
                format!("{name} # first\n"),
            );
        }
        let (more, bad) = compare(root.path(), GLIBC, &processor);
        found += more;
        failed += bad;
    }
    assert!(caches > 50, "{caches}");
    // The roots are of use only if some programs run and some do not.
    assert!(
        found > 200 && (20..180).contains(&failed),
        "{found}, {failed}"
    );
}

#[test]
fn musl_finds_what_its_loader_lists() {
    let directories = ["lib", "usr/local/lib", "usr/lib", "opt/a", "opt/b", "opt/c"];
    let (mut found, mut failed) = (0, 0);
    for seed in 1..=100 {
        let mut numbers = Numbers::seeded(seed);
        let root = tempfile::tempdir().unwrap();
        generate(root.path(), &mut numbers, &directories, true);
        if numbers.chance(40) {
            let list = numbers.pick(&["/opt/c\n/lib\n", "/opt/b:/opt/a", "", "/usr/lib\n"]);
            put(root.path(), "etc/ld-musl-x86_64.path", list);
        }
        put(root.path(), "etc/ld.so.conf", "/opt/b\n");
        let (more, bad) = compare(root.path(), MUSL, "");
        found += more;
        failed += bad;
    }
    assert!(
        found > 100 && (10..90).contains(&failed),
        "{found}, {failed}"
    );
}

proptest! {
    #[test]
    fn a_damaged_program_names_only_what_is_in_it(at in any::<prop::sample::Index>(), value in any::<[u8; 8]>()) {
        let mut file = Made::program(GLIBC).needs("liba.so.1").rpath("/opt/a").soname("own").build();
        let at = at.index(file.len() - value.len());
        file[at..at + value.len()].copy_from_slice(&value);
        if let Some(dynamic) = Dynamic::parse(&file) {
            for name in dynamic.needed.iter().chain(&dynamic.soname).chain(&dynamic.rpath) {
                prop_assert!(!name.contains(&0));
                prop_assert!(name.is_empty() || file.windows(name.len()).any(|window| window == name.as_slice()));
            }
        }
    }
}
