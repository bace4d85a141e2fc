//! The files with which the guest program tests what a kernel that appraises must allow and deny.
//!
//! An image builder puts them into the root and signs each as [`File::signature_of`] says. The guest program finds them by name.

/// The directory of the files in the root, without the leading slash.
pub const DIRECTORY: &str = "usr/lib/ima-testbed";

/// The directory of firmware in the root, without the leading slash. The kernel finds it as `/lib/firmware/ima-testbed`.
pub const FIRMWARE_DIRECTORY: &str = "usr/lib/firmware/ima-testbed";

/// A systemd service that makes the attempts and reports once the system is up, then powers the machine off. It belongs into
/// `etc/systemd/system`; a link in `multi-user.target.wants` enables it.
pub const SYSTEMD_UNIT: &str = include_str!("../systemd/ima-testbed.service");

/// Names of the files, within [`DIRECTORY`].
pub mod names {
    /// The guest program itself, where it is not the init.
    pub const GUEST: &str = "guest";
    /// A program with a signature.
    pub const SIGNED: &str = "signed";
    /// The same program without.
    pub const UNSIGNED: &str = "unsigned";
    /// The same program changed after it was signed.
    pub const TAMPERED: &str = "tampered";
    /// A script with a signature.
    pub const SIGNED_SCRIPT: &str = "signed.sh";
    /// The same script without.
    pub const UNSIGNED_SCRIPT: &str = "unsigned.sh";
    /// A file to be mapped executable, with a signature.
    pub const SIGNED_LIBRARY: &str = "signed.so";
    /// The same file without.
    pub const UNSIGNED_LIBRARY: &str = "unsigned.so";
    /// A module with a signature, if the builder has one for the kernel.
    pub const SIGNED_MODULE: &str = "signed.ko";
    /// The same module without; any content does, as appraisal comes before the kernel looks at it.
    pub const UNSIGNED_MODULE: &str = "unsigned.ko";
    /// A kernel for kexec that starts nothing, with a signature. The names end so that signing by policy takes them for what is
    /// loaded by kexec.
    pub const SIGNED_KERNEL: &str = "signed-kernel.img";
    /// The same kernel without.
    pub const UNSIGNED_KERNEL: &str = "unsigned-kernel.img";
    /// An initramfs for it, with a signature.
    pub const SIGNED_INITRAMFS: &str = "signed-initramfs.img";
    /// The same initramfs without.
    pub const UNSIGNED_INITRAMFS: &str = "unsigned-initramfs.img";
    /// A file to be read, with a signature.
    pub const SIGNED_FILE: &str = "signed.txt";
    /// The same file without.
    pub const UNSIGNED_FILE: &str = "unsigned.txt";
    /// A program with a version 3 signature of its fs-verity digest. Where it is there, the guest program tries it, enables
    /// fs-verity on the three and tries them again; the root must be writable, and its policy ask for such signatures of them.
    pub const VERITY_SIGNED: &str = "verity-signed";
    /// The same program with such a signature of other content.
    pub const VERITY_TAMPERED: &str = "verity-tampered";
    /// The same program with a signature of its content.
    pub const VERITY_PLAIN: &str = "verity-plain";
    /// A policy without a signature.
    pub const UNSIGNED_POLICY: &str = "unsigned.policy";
    /// The kernel's module `test_firmware`, which asks for firmware by the names that are written to it, with a signature. Where it
    /// is there, the guest program has it load the two below.
    pub const FIRMWARE_MODULE: &str = "test_firmware.ko";
    /// Firmware with a signature, within [`FIRMWARE_DIRECTORY`](super::FIRMWARE_DIRECTORY).
    pub const SIGNED_FIRMWARE: &str = "signed.fw";
    /// The same firmware without.
    pub const UNSIGNED_FIRMWARE: &str = "unsigned.fw";
}

/// A file for the root.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct File {
    /// The path in the root, without the leading slash.
    pub path: String,
    /// The permission bits.
    pub mode: u32,
    /// The content.
    pub content: Vec<u8>,
    /// The content of which `security.ima` must be a signature, or `None` if the file gets no `security.ima`. It differs from
    /// `content` for the file that is changed after it was signed.
    pub signature_of: Option<Vec<u8>>,
}

/// Returns the files for attempts with `program`: the guest program, or any static program that exits with status 0 if its first
/// argument is `ok`. `module` is a kernel module without effect.
#[must_use]
pub fn files(program: &[u8], module: Option<&[u8]>) -> Vec<File> {
    let file = |name: &str, mode: u32, content: &[u8], signature_of: Option<&[u8]>| File {
        path: format!("{DIRECTORY}/{name}"),
        mode,
        content: content.to_vec(),
        signature_of: signature_of.map(<[u8]>::to_vec),
    };
    let pair = |signed: &str, unsigned: &str, mode: u32, content: &[u8]| {
        [
            file(signed, mode, content, Some(content)),
            file(unsigned, mode, content, None),
        ]
    };
    let script = format!("#!/{DIRECTORY}/{} ok\n", names::SIGNED);
    let tampered = [program, b"\0"].concat();

    let mut files = Vec::new();
    files.extend(pair(names::SIGNED, names::UNSIGNED, 0o755, program));
    files.push(file(names::TAMPERED, 0o755, &tampered, Some(program)));
    files.extend(pair(
        names::SIGNED_SCRIPT,
        names::UNSIGNED_SCRIPT,
        0o755,
        script.as_bytes(),
    ));
    files.extend(pair(
        names::SIGNED_LIBRARY,
        names::UNSIGNED_LIBRARY,
        0o644,
        program,
    ));
    files.extend(pair(
        names::SIGNED_FILE,
        names::UNSIGNED_FILE,
        0o644,
        b"read\n",
    ));
    files.extend(pair(
        names::SIGNED_KERNEL,
        names::UNSIGNED_KERNEL,
        0o644,
        &kernel(),
    ));
    files.extend(pair(
        names::SIGNED_INITRAMFS,
        names::UNSIGNED_INITRAMFS,
        0o644,
        b"initramfs\n",
    ));
    match module {
        Some(module) => files.extend(pair(
            names::SIGNED_MODULE,
            names::UNSIGNED_MODULE,
            0o644,
            module,
        )),
        None => files.push(file(names::UNSIGNED_MODULE, 0o644, b"no module\n", None)),
    }
    // A rule that changes nothing, should it be taken.
    let policy = b"dont_measure func=FILE_CHECK uid=4294967294\n";
    files.push(file(names::UNSIGNED_POLICY, 0o644, policy, None));
    files
}

/// Returns the files for attempts to load firmware. `module` is the kernel's module `test_firmware`.
#[must_use]
pub fn firmware_files(module: &[u8]) -> Vec<File> {
    let file = |directory: &str, name: &str, content: &[u8], is_signed: bool| File {
        path: format!("{directory}/{name}"),
        mode: 0o644,
        content: content.to_vec(),
        signature_of: is_signed.then(|| content.to_vec()),
    };
    let firmware = |name, is_signed| file(FIRMWARE_DIRECTORY, name, b"firmware\n", is_signed);
    vec![
        file(DIRECTORY, names::FIRMWARE_MODULE, module, true),
        firmware(names::SIGNED_FIRMWARE, true),
        firmware(names::UNSIGNED_FIRMWARE, false),
    ]
}

/// Returns the guest program as a file of the root, for the service [`SYSTEMD_UNIT`].
#[must_use]
pub fn guest_program(program: &[u8]) -> File {
    File {
        path: format!("{DIRECTORY}/{}", names::GUEST),
        mode: 0o755,
        content: program.to_vec(),
        signature_of: Some(program.to_vec()),
    }
}

/// A kernel that kexec_file_load(2) takes and that starts nothing: a bzImage on x86-64 (`bzImage64_probe` and `bzImage64_load` in
/// arch/x86/kernel/kexec-bzimage64.c), by a setup header (Documentation/arch/x86/boot.rst) with no kernel behind it, and an Image on
/// arm64 (`image_probe` and `image_load` in arch/arm64/kernel/kexec_image.c), by a header (Documentation/arch/arm64/booting.rst) that
/// lies in a part which x86 does not read.
fn kernel() -> Vec<u8> {
    const SECTOR: usize = 512;
    let mut image = vec![0; 4 * SECTOR];
    let fields: [(usize, &[u8]); 13] = [
        // arm64: image_size and the magic number; no page size or byte order is asked for.
        (0x10, &0x1_0000_u64.to_le_bytes()),
        (0x38, b"ARM\x64"),
        // setup_sects: the sectors of the setup behind the first.
        (0x1f1, &[1]),
        (0x1fe, &[0x55, 0xaa]),
        // A jump over the header, which gives the length of the header.
        (0x200, &[0xeb, 0x66]),
        (0x202, b"HdrS"),
        // Version 2.15.
        (0x206, &[0x0f, 0x02]),
        // loadflags: LOADED_HIGH.
        (0x211, &[1]),
        // kernel_alignment: 2 MiB.
        (0x230, &0x20_0000_u32.to_le_bytes()),
        // relocatable_kernel; xloadflags: KERNEL_64, CAN_BE_LOADED_ABOVE_4G, 5LEVEL.
        (0x234, &[1, 0, 0b10_0011, 0]),
        // cmdline_size
        (0x238, &0x7ff_u32.to_le_bytes()),
        // pref_address: 16 MiB.
        (0x258, &0x100_0000_u64.to_le_bytes()),
        // init_size
        (0x260, &0x1_0000_u32.to_le_bytes()),
    ];
    for (at, bytes) in fields {
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tampered_file_differs_from_what_was_signed() {
        let files = files(b"program", Some(b"module"));
        let odd: Vec<&str> = files
            .iter()
            .filter(|file| {
                file.signature_of
                    .as_ref()
                    .is_some_and(|signed| *signed != file.content)
            })
            .map(|file| file.path.as_str())
            .collect();
        assert_eq!(odd, ["usr/lib/ima-testbed/tampered"]);
        for file in files.iter().chain(&firmware_files(b"module")) {
            let name = file.path.rsplit('/').next().unwrap();
            assert_eq!(
                file.signature_of.is_none(),
                name.starts_with("unsigned"),
                "{name}"
            );
        }
    }
}
