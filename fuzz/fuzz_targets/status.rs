//! Any files in the tree of a system: its status is one, and so are the metrics and the page that show it.
#![no_main]

use imactl::status::{Status, System};

/// What the status is read from, but for what other targets have: the first byte of a piece of the input chooses one.
const FILES: [&str; 12] = [
    "run/ima-init/report.json",
    "dev/kmsg",
    "var/log/audit/audit.log",
    "proc/keys",
    "proc/stat",
    "proc/cmdline",
    "proc/self/mountinfo",
    "proc/sys/kernel/osrelease",
    "sys/kernel/security/ima/policy",
    "sys/kernel/security/ima/binary_runtime_measurements",
    "sys/kernel/security/lockdown",
    "sys/firmware/efi/efivars/StubInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f",
];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let tree = tempfile::tempdir().unwrap();
    for piece in data.split(|byte| *byte == 0xff) {
        let Some((first, content)) = piece.split_first() else {
            continue;
        };
        let path = tree.path().join(FILES[usize::from(*first) % FILES.len()]);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let status = Status::of(&System::recorded(tree.path()).unwrap(), 1_800_000_000);
    assert!(status.metrics(&[]).starts_with("# HELP ima_status "));
    let page = status.html();
    assert!(page.ends_with("</body></html>\n") && !page.contains("<script"));
    assert!(status.json(&[])["checks"].is_array());
});
