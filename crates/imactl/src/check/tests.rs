use super::*;
use crate::identity::{Identity, Version};
use crate::kernel::release::KernelRelease;
use crate::key::{FileKey, KeyKind, Signer as _};
use crate::loader::tests::Made;
use crate::select::FileSystem;
use crate::tree::Inode;
use crate::tree::{Content, Kind, Tree};
use crate::uki::{Builder, Database, UnifiedKernelImage, authenticode, testing};
use crate::x509::{Template, Usage};
use ima::certificate::Certificate;
use ima::fault::Cause;
use ima::filesystem::{self, Filesystem, Need};
use ima::hash::HashAlgorithm;

const POLICY: &[u8] = include_bytes!("../../../../policy/ima_policy.default");
const INIT: &[u8] = b"sbin/init";
const SWITCH_ROOT: &[u8] = b"usr/sbin/switch_root.static";
const LINE: &str = "root=LABEL=root";

/// A CA, a key that it signed, and what they make.
struct Desk {
    authority: Certificate,
    certificate: Certificate,
    identity: Identity,
    initramfs: InitramfsBuilder,
    root: Root,
}

/// A static ELF program for x86-64 that does nothing: a header and one program header.
fn program() -> Vec<u8> {
    let mut elf = vec![0; 120];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[16] = 2;
    elf[18] = 62;
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 1;
    elf[64] = 1;
    elf
}

impl Desk {
    fn new() -> Self {
        Self::with_keys(KeyKind::P256)
    }

    fn with_keys(kind: KeyKind) -> Self {
        let ca_key = FileKey::generate(kind).unwrap();
        let authority = Template::ca("CA").sign(&ca_key, None, None).unwrap();
        let key = FileKey::generate(kind).unwrap();
        let certificate = Template::leaf("leaf")
            .sign(&key, Some((&ca_key, &authority)), None)
            .unwrap();
        let identity = Identity::new(
            std::sync::Arc::new(key),
            &certificate,
            HashAlgorithm::Sha256,
        )
        .unwrap();
        let initramfs = InitramfsBuilder::new()
            .init(program())
            .certificate("x509_ima.der", certificate.der())
            .default_policy(POLICY);
        let root = Root {
            tree: Tree::new(),
            filesystem: FileSystem::default(),
            table: None,
            superblocks: Some(vec![Filesystem {
                kind: filesystem::Kind::Ext4,
                uuid: None,
                label: Some("root".into()),
            }]),
            needs: Vec::new(),
            noexec: false,
            verified: None,
            backing: None,
            unmountable: None,
        };
        let mut desk = Self {
            authority,
            certificate,
            identity,
            initramfs,
            root,
        };
        desk.put(INIT, 0o755, &program());
        desk.put(SWITCH_ROOT, 0o755, &program());
        desk
    }

    /// A signed file.
    fn put(&mut self, name: &[u8], mode: u16, content: &[u8]) {
        let mut inode = Inode::new(Kind::File(Content::Bytes(content.into())), mode);
        let digest = HashAlgorithm::Sha256.digest(content).unwrap();
        let value = self.identity.sign_digest(&digest).unwrap();
        inode.xattrs.insert(b"security.ima".to_vec(), value);
        self.root.tree.insert(name, inode).unwrap();
    }

    fn link(&mut self, name: &[u8], target: &[u8]) {
        let inode = Inode::new(Kind::Symlink(target.to_vec()), 0o777);
        self.root.tree.insert(name, inode).unwrap();
    }

    fn unsign(&mut self, name: &[u8]) {
        self.root.tree.get_mut(name).unwrap().xattrs.clear();
    }

    fn check(&self, line: &str) -> Findings {
        check(&Inputs {
            initramfs: Some(&self.initramfs),
            root: Some(&self.root),
            kernel: None,
            release: None,
            authorities: Some(std::slice::from_ref(&self.authority)),
            owner_keys: &[],
            command_line: Some(line),
            boot_image: None,
        })
    }

    /// For a kernel of that release, of which nothing else is known.
    fn check_for(&self, release: Option<&str>) -> Findings {
        let release = release.map(|release| KernelRelease {
            name: release.to_owned(),
            vermagic: None,
        });
        check(&Inputs {
            initramfs: Some(&self.initramfs),
            root: Some(&self.root),
            kernel: None,
            release: release.as_ref(),
            authorities: Some(std::slice::from_ref(&self.authority)),
            owner_keys: &[],
            command_line: Some(LINE),
            boot_image: None,
        })
    }

    fn refusal(&self) -> Option<Code> {
        self.check(LINE).refusal().map(Fault::code)
    }
}

#[test]
fn what_fits_together_boots() {
    let found = Desk::new().check(LINE);
    assert_eq!(found.refusal(), None);
    assert!(found.denied.is_empty(), "{:?}", found.denied);
}

/// `xattr_verify` in ima_appraise.c: 6.12 takes no version 3 on a file, 7.2 takes both where the rule says imasig, and version 3
/// alone where it says sigv3.
#[test]
fn kernel_and_policy_say_which_version_of_signatures_is_taken() {
    let sigv3 = String::from_utf8_lossy(POLICY).replace("=imasig", "=sigv3");
    let denied = Some(Code::SwitchRootDenied);
    for (policy, version, release, refusal) in [
        (POLICY, Version::V2, Some("6.12.1"), None),
        (POLICY, Version::V3, Some("6.12.1"), denied),
        (POLICY, Version::V3, None, denied),
        (POLICY, Version::V2, Some("7.2.13"), None),
        (POLICY, Version::V3, Some("7.2.13"), None),
        (sigv3.as_bytes(), Version::V2, Some("7.2.13"), denied),
        (sigv3.as_bytes(), Version::V3, Some("7.2.13"), None),
        (sigv3.as_bytes(), Version::V3, None, None),
    ] {
        let mut desk = Desk::new();
        desk.initramfs = desk.initramfs.default_policy(policy);
        desk.identity = desk.identity.clone().with_version(version);
        desk.put(INIT, 0o755, &program());
        desk.put(SWITCH_ROOT, 0o755, &program());
        let found = desk.check_for(release);
        let code = found.refusal().map(Fault::code);
        assert_eq!(code, refusal, "{version:?} {release:?}: {:?}", found.faults);
    }
}

#[test]
fn ml_dsa_and_evm_s_version_3_need_their_kernels() {
    let desk = Desk::with_keys(KeyKind::MlDsa(ima::certificate::MlDsa::MlDsa65));
    assert_eq!(desk.check_for(Some("7.2.13")).refusal(), None);
    let found = desk.check_for(Some("7.1.9"));
    let code = found.refusal().map(Fault::code);
    assert_eq!(code, Some(Code::CertificateRefused), "{:?}", found.faults);

    let mut desk = Desk::new();
    let evm = desk.certificate.der().to_vec();
    desk.initramfs = desk
        .initramfs
        .certificate("x509_evm.der", evm)
        .config(&b"evm_sigv3=yes\n"[..]);
    for (version, release, refusal) in [
        (Version::V3, "7.1", None),
        (Version::V2, "7.1", Some(Code::SwitchRootDenied)),
        (Version::V3, "6.12.1", Some(Code::EvmOff)),
    ] {
        let evm = desk.identity.clone().with_version(version);
        for name in [INIT, SWITCH_ROOT] {
            let inode = desk.root.tree.get_mut(name).unwrap();
            inode.xattrs.remove(&b"security.evm"[..]);
            let attributes = ima::evm::Attributes {
                mode: 0o100_755,
                uid: 0,
                gid: 0,
            };
            let value = evm.sign_evm(&attributes, &inode.xattrs).unwrap();
            inode.xattrs.insert(b"security.evm".to_vec(), value);
        }
        let found = desk.check_for(Some(release));
        let code = found.refusal().map(Fault::code);
        assert_eq!(code, refusal, "{version:?} {release}: {:?}", found.faults);
    }
}

/// With `ima_appraise=log` the kernel denies nothing, if it has the parameter.
#[test]
fn an_unsigned_root_boots_where_nothing_is_enforced() {
    let mut desk = Desk::new();
    desk.unsign(INIT);
    desk.initramfs = desk.initramfs.config(&b"enforce=permissive\n"[..]);
    assert_eq!(desk.refusal(), Some(Code::InitDenied));
    let line = format!("{LINE} ima_appraise=log");
    let kernel = |options: &str| KernelConfig::parse(options.as_bytes()).unwrap();
    let with = |kernel: Option<&KernelConfig>| {
        let found = check(&Inputs {
            initramfs: Some(&desk.initramfs),
            root: Some(&desk.root),
            kernel,
            release: None,
            authorities: Some(std::slice::from_ref(&desk.authority)),
            owner_keys: &[],
            command_line: Some(&line),
            boot_image: None,
        });
        let codes: Vec<Code> = found.faults.iter().map(Fault::code).collect();
        codes.contains(&Code::InitDenied)
    };
    assert!(!with(None));
    assert!(!with(Some(&kernel("CONFIG_IMA_APPRAISE_BOOTPARAM=y\n"))));
    assert!(with(Some(&kernel("CONFIG_IMA=y\n"))));
}

#[test]
fn each_fault_has_the_init_s_code() {
    type Break = fn(&mut Desk);
    let cases: [(&str, Break, Code); 16] = [
        (
            "no init",
            |desk| desk.link(INIT, b"/nowhere"),
            Code::InitMissing,
        ),
        ("a loop", |desk| desk.link(INIT, b"init"), Code::InitMissing),
        ("unsigned init", |desk| desk.unsign(INIT), Code::InitDenied),
        (
            "no program",
            |desk| desk.put(INIT, 0o755, b"text"),
            Code::InitInvalid,
        ),
        (
            "not executable",
            |desk| desk.put(INIT, 0o644, &program()),
            Code::InitInvalid,
        ),
        (
            "no interpreter",
            |desk| desk.put(INIT, 0o755, b"#!/bin/sh\n"),
            Code::InterpreterMissing,
        ),
        (
            "unsigned interpreter",
            |desk| {
                desk.put(INIT, 0o755, b"#!/bin/sh\n");
                desk.put(b"bin/sh", 0o755, &program());
                desk.unsign(b"bin/sh");
            },
            Code::InterpreterDenied,
        ),
        (
            "a script as switch_root",
            |desk| desk.put(SWITCH_ROOT, 0o755, b"#!/bin/sh\n"),
            Code::SwitchRootInvalid,
        ),
        (
            "unsigned switch_root",
            |desk| desk.unsign(SWITCH_ROOT),
            Code::SwitchRootDenied,
        ),
        (
            "no policy",
            |desk| {
                desk.initramfs = desk.initramfs.clone().without("etc/ima/ima_policy.default");
            },
            Code::PolicyMissing,
        ),
        (
            "a bad policy",
            |desk| {
                desk.initramfs = desk.initramfs.clone().policy("appraise func=X\n");
            },
            Code::PolicyInvalid,
        ),
        (
            "no certificate",
            |desk| {
                desk.initramfs = desk.initramfs.clone().without("etc/keys/x509_ima.der");
            },
            Code::NoCertificate,
        ),
        (
            "the CA as leaf",
            |desk| {
                let ca = desk.authority.der().to_vec();
                desk.initramfs = desk.initramfs.clone().certificate("x509_ima.der", ca);
            },
            Code::CertificateRefused,
        ),
        (
            "another CA",
            |desk| {
                let key = FileKey::generate(KeyKind::P256).unwrap();
                desk.authority = Template::ca("other").sign(&key, None, None).unwrap();
            },
            Code::CertificateRefused,
        ),
        (
            "a bad configuration",
            |desk| {
                desk.initramfs = desk.initramfs.clone().config("enforce=no\n");
            },
            Code::ConfigInvalid,
        ),
        (
            "another label",
            |desk| {
                desk.root.superblocks.as_mut().unwrap()[0].label = None;
            },
            Code::RootMissing,
        ),
    ];
    for (what, break_it, code) in cases {
        let mut desk = Desk::new();
        break_it(&mut desk);
        assert_eq!(desk.refusal(), Some(code), "{what}");
    }
}

#[test]
fn the_command_line_is_part_of_it() {
    let desk = Desk::new();
    for (line, code) in [
        ("root=vda", Code::RootSyntax),
        ("", Code::NoRootNamed),
        ("root=LABEL=root ima_appraise=off", Code::AppraiseWeakened),
    ] {
        assert_eq!(
            desk.check(line).refusal().map(Fault::code),
            Some(code),
            "{line}"
        );
    }
}

#[test]
fn a_certificate_beside_a_good_one_is_a_warning() {
    let mut desk = Desk::new();
    desk.initramfs = desk
        .initramfs
        .clone()
        .certificate("x509_ima2.der", "nothing");
    let found = desk.check(LINE);
    assert_eq!(found.refusal(), None);
    let codes: Vec<Code> = found.faults.iter().map(Fault::code).collect();
    assert_eq!(codes, [Code::CertificateSkipped]);
}

#[test]
fn a_root_signed_with_an_rsa_key_that_the_kernel_does_not_compute_with() {
    let pem = std::process::Command::new("openssl")
        .args(["genrsa", "2560"])
        .output()
        .expect("openssl")
        .stdout;
    let key = FileKey::from_bytes(&pem, &crate::key::no_password).unwrap();
    let mut desk = Desk::new();
    let ca_key = FileKey::generate(KeyKind::P256).unwrap();
    desk.authority = Template::ca("CA").sign(&ca_key, None, None).unwrap();
    let certificate = Template::leaf("leaf")
        .sign(&key, Some((&ca_key, &desk.authority)), None)
        .unwrap();
    desk.initramfs = desk
        .initramfs
        .clone()
        .certificate("x509_ima.der", certificate.der());
    let digest = HashAlgorithm::Sha256.digest(&program()).unwrap();
    let value = ima::signature::ImaXattr::Signature(ima::signature::SignatureV2 {
        algo: HashAlgorithm::Sha256,
        key_id: certificate.key_id(),
        signature: key.sign_digest(HashAlgorithm::Sha256, &digest).unwrap(),
    })
    .encode();
    for name in [INIT, SWITCH_ROOT] {
        let inode = desk.root.tree.get_mut(name).unwrap();
        inode.xattrs.insert(b"security.ima".to_vec(), value.clone());
    }
    let found = desk.check(LINE);
    let codes: Vec<Code> = found.faults.iter().map(Fault::code).collect();
    let expected = [
        Code::CertificateUseless,
        Code::SwitchRootDenied,
        Code::InitDenied,
    ];
    assert_eq!(codes, expected, "{:?}", found.faults);
    assert!(found.faults[1].detail().contains("RSA-2560"));
    // As the CA in the kernel it vouches for nobody.
    let mut desk = Desk::new();
    desk.authority = Template::ca("CA").sign(&key, None, None).unwrap();
    let leaf = FileKey::generate(KeyKind::P256).unwrap();
    let certificate = Template::leaf("leaf")
        .sign(&leaf, Some((&key, &desk.authority)), None)
        .unwrap();
    desk.initramfs = desk
        .initramfs
        .clone()
        .certificate("x509_ima.der", certificate.der());
    let found = desk.check(LINE);
    let refusal = found.refusal().unwrap();
    assert_eq!(refusal.code(), Code::CertificateRefused);
    assert!(refusal.to_string().contains("RSA-2560"), "{refusal}");
}

#[test]
fn a_certificate_without_identifier_is_taken_and_finds_no_signature() {
    let mut desk = Desk::new();
    let key = FileKey::generate(KeyKind::P256).unwrap();
    let authority = Template::ca("CA").sign(&key, None, None).unwrap();
    let mut template = Template::leaf("unnamed");
    template.skid = false;
    let unnamed = template.sign(&key, Some((&key, &authority)), None).unwrap();
    desk.authority = authority;
    desk.initramfs = desk
        .initramfs
        .clone()
        .certificate("x509_ima.der", unnamed.der());
    let found = desk.check(LINE);
    assert_eq!(
        found.refusal().map(Fault::code),
        Some(Code::SwitchRootDenied)
    );
    let codes: Vec<Code> = found.faults.iter().map(Fault::code).collect();
    assert!(codes.contains(&Code::CertificateUseless), "{codes:?}");
}

#[test]
fn links_are_followed_inside_the_root_only() {
    let mut desk = Desk::new();
    desk.put(b"usr/lib/init", 0o755, &program());
    desk.link(INIT, b"../../../usr/lib/init");
    assert_eq!(desk.refusal(), None);
    desk.link(INIT, b"/usr/lib/init");
    assert_eq!(desk.refusal(), None);
}

#[test]
fn every_file_that_would_be_denied_is_named() {
    let mut desk = Desk::new();
    for name in [&b"usr/bin/good"[..], b"usr/bin/bad", b"usr/lib/libbad.so"] {
        desk.put(name, 0o755, &program());
    }
    desk.put(b"etc/text", 0o644, b"not appraised");
    for name in [&b"usr/bin/bad"[..], b"usr/lib/libbad.so", b"etc/text"] {
        desk.unsign(name);
    }
    let found = desk.check(LINE);
    assert_eq!(found.refusal(), None);
    let names: Vec<&[u8]> = found
        .denied
        .iter()
        .map(|(name, _)| name.as_slice())
        .collect();
    assert_eq!(names, [&b"usr/bin/bad"[..], b"usr/lib/libbad.so"]);
}

#[test]
fn kernels_are_named_only_where_one_can_be_loaded() {
    for (kexec, expected) in [("no", 0), ("yes", 2)] {
        let mut desk = Desk::new();
        for name in [&b"boot/vmlinuz-6.12"[..], b"boot/initrd.img-6.12.new"] {
            desk.put(name, 0o644, b"content");
            desk.unsign(name);
        }
        desk.initramfs = desk.initramfs.clone().config(format!("kexec={kexec}\n"));
        assert_eq!(desk.check(LINE).denied.len(), expected, "kexec={kexec}");
    }
}

#[test]
fn programs_for_another_machine_and_loaders_that_are_none() {
    let mut other = program();
    other[18] = 183;
    for (name, code) in [
        (SWITCH_ROOT, Code::SwitchRootInvalid),
        (INIT, Code::InitInvalid),
    ] {
        let mut desk = Desk::new();
        desk.put(name, 0o755, &other);
        assert_eq!(desk.refusal(), Some(code));
    }
    let mut desk = Desk::new();
    let own = std::env::current_exe().unwrap();
    let own = std::fs::read(own).unwrap();
    desk.put(INIT, 0o755, &own);
    desk.put(b"lib64/ld-linux-x86-64.so.2", 0o755, b"#!/bin/sh\n");
    assert_eq!(desk.refusal(), Some(Code::InterpreterInvalid));
}

#[test]
fn images_that_no_kernel_mounts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    let of = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        let root = Root::read(&path, FileSystem::default(), &RootChoice::default());
        root.map(|root| root.unmountable.map(|fault| fault.code()))
            .map_err(|fault| fault.code())
    };
    let mut image = vec![0; 8192];
    assert_eq!(of(&image), Ok(Some(Code::RootUnknown)));
    let mut container = image.clone();
    container[..8].copy_from_slice(b"LUKS\xba\xbe\x00\x02");
    std::fs::write(&path, &container).unwrap();
    let root = Root::read(&path, FileSystem::default(), &RootChoice::default()).unwrap();
    let fault = root.unmountable.unwrap();
    assert_eq!(fault.found(), Some(ima::fault::Cause::LUKS_CONTAINER));
    image[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
    assert_eq!(of(&image), Ok(Some(Code::RootMount)));
    assert_eq!(of(b"\x1f\x8b no archive"), Err(Code::SourceMalformed));
    let mut desk = Desk::new();
    desk.root.unmountable = Some(Fault::new(Code::RootMount, "it"));
    assert_eq!(desk.refusal(), Some(Code::RootMount));
}

#[test]
fn an_archive_in_a_compression_that_is_not_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.tar.bz2");
    for (program, name) in [("bzip2", "bzip2"), ("lz4 -l", "lz4")] {
        std::fs::write(&path, packed(program, &[0; 1024])).unwrap();
        let fault = Root::read(&path, FileSystem::default(), &RootChoice::default()).unwrap_err();
        assert_eq!(fault.code(), Code::SourceMalformed);
        let text = fault.to_string();
        for word in [name, "gzip, zstd or xz"] {
            assert!(text.contains(word), "{text}");
        }
    }
}

#[test]
fn policies_of_the_kernel_s_own_that_demand_a_signature() {
    let desk = Desk::new();
    let of = |line: &str| desk.check(line).refusal().map(Fault::code);
    for (line, expected) in [
        (
            "root=LABEL=root ima_policy=secure_boot",
            Some(Code::PolicySignature),
        ),
        (
            "root=LABEL=root \"ima_policy=tcb|appraise_tcb\"",
            Some(Code::PolicySignature),
        ),
        ("root=LABEL=root ima_policy=tcb", None),
    ] {
        assert_eq!(of(line), expected, "{line}");
    }
}

#[test]
fn the_host_s_own_programs_have_their_libraries() {
    // A dynamic program of this machine, with the libraries that its loader would find, in a root of their own.
    let mut desk = Desk::new();
    let read = |path: &str| std::fs::read(path).unwrap();
    desk.put(INIT, 0o755, &read("/bin/ls"));
    desk.put(
        b"lib64/ld-linux-x86-64.so.2",
        0o755,
        &read("/lib64/ld-linux-x86-64.so.2"),
    );
    let faults =
        |desk: &Desk| -> Vec<Code> { desk.check(LINE).faults.iter().map(Fault::code).collect() };
    assert!(faults(&desk).contains(&Code::LibraryMissing));
    let directory = "lib/x86_64-linux-gnu";
    for name in ["libselinux.so.1", "libc.so.6", "libpcre2-8.so.0"] {
        desk.put(
            format!("lib/{name}").as_bytes(),
            0o644,
            &read(&format!("/{directory}/{name}")),
        );
    }
    assert_eq!(faults(&desk), []);
    desk.unsign(b"lib/libc.so.6");
    assert_eq!(faults(&desk), [Code::LibraryDenied]);
}

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// A desk whose init needs `liba.so.1`, with glibc's own loader.
fn needing_a_library() -> Desk {
    let mut desk = Desk::new();
    desk.put(
        &LOADER.as_bytes()[1..],
        0o755,
        &std::fs::read(LOADER).unwrap(),
    );
    desk.put(
        INIT,
        0o755,
        &Made::program(LOADER).needs("liba.so.1").build(),
    );
    desk
}

#[test]
fn a_library_of_another_machine_is_passed_over() {
    let first = b"lib/x86_64-linux-gnu/liba.so.1";
    let second = b"usr/lib/liba.so.1";
    for (unsigned, expected) in [(&first[..], None), (&second[..], Some(Code::LibraryDenied))] {
        let mut desk = needing_a_library();
        desk.put(first, 0o644, &Made::library().narrow().build());
        desk.put(second, 0o644, &Made::library().build());
        desk.unsign(unsigned);
        assert_eq!(desk.refusal(), expected);
    }
    let mut desk = needing_a_library();
    desk.put(first, 0o644, &Made::library().narrow().build());
    assert_eq!(desk.refusal(), Some(Code::LibraryMissing));
}

#[test]
fn ld_so_conf_counts_for_nothing_without_a_cache() {
    let mut desk = needing_a_library();
    desk.put(b"opt/lib/liba.so.1", 0o644, &Made::library().build());
    desk.put(b"etc/ld.so.conf.d/opt.conf", 0o644, b"/opt/lib\n");
    assert_eq!(desk.refusal(), Some(Code::LibraryMissing));
    let mut desk = needing_a_library();
    desk.put(
        b"usr/lib/x86_64-linux-gnu/liba.so.1",
        0o644,
        &Made::library().build(),
    );
    assert_eq!(desk.refusal(), None, "the loader's own directories");
}

#[test]
fn a_library_for_better_processors_is_preferred() {
    let mut desk = needing_a_library();
    let library = b"usr/lib/liba.so.1";
    let better = b"usr/lib/glibc-hwcaps/x86-64-v3/liba.so.1";
    desk.put(library, 0o644, &Made::library().build());
    desk.put(better, 0o644, &Made::library().build());
    assert_eq!(desk.refusal(), None);
    desk.unsign(better);
    let found = desk.check(LINE);
    let refusal = found.refusal().unwrap();
    assert_eq!(refusal.code(), Code::LibraryDenied);
    assert!(refusal.detail().contains("x86-64-v3"), "{refusal}");
    desk.put(better, 0o644, &Made::library().build());
    desk.unsign(library);
    assert_eq!(desk.refusal(), Some(Code::LibraryDenied), "older ones");
}

#[test]
fn rpath_is_inherited_and_runpath_is_not() {
    for (inherited, expected) in [(true, None), (false, Some(Code::LibraryMissing))] {
        let mut desk = needing_a_library();
        let init = Made::program(LOADER).needs("liba.so.1");
        let init = if inherited {
            init.rpath("/opt/lib")
        } else {
            init.runpath("/opt/lib")
        };
        desk.put(INIT, 0o755, &init.build());
        let library = Made::library().needs("libb.so.1").build();
        desk.put(b"opt/lib/liba.so.1", 0o644, &library);
        desk.put(b"opt/lib/libb.so.1", 0o644, &Made::library().build());
        assert_eq!(desk.refusal(), expected);
    }
}

#[test]
fn the_libraries_of_a_script_s_interpreter() {
    let mut desk = needing_a_library();
    let shell = Made::program(LOADER).needs("liba.so.1").build();
    desk.put(b"bin/sh", 0o755, &shell);
    desk.put(INIT, 0o755, b"#!/bin/sh\n");
    assert_eq!(desk.refusal(), Some(Code::LibraryMissing));
    desk.put(b"usr/lib/liba.so.1", 0o644, &Made::library().build());
    assert_eq!(desk.refusal(), None);
}

#[test]
fn musl_has_other_directories_and_is_its_own_c_library() {
    let mut desk = Desk::new();
    let loader = "/lib/ld-musl-x86_64.so.1";
    desk.put(&loader.as_bytes()[1..], 0o755, &Made::library().build());
    let init = Made::program(loader)
        .needs("libc.musl-x86_64.so.1")
        .needs("liba.so.1");
    desk.put(INIT, 0o755, &init.build());
    desk.put(b"usr/local/lib/liba.so.1", 0o644, &Made::library().build());
    assert_eq!(desk.refusal(), None);
    desk.put(b"etc/ld-musl-x86_64.path", 0o644, b"/lib\n/usr/lib\n");
    assert_eq!(desk.refusal(), Some(Code::LibraryMissing));
}

#[test]
fn an_initramfs_read_back_is_checked_the_same() {
    let mut desk = Desk::new();
    for compression in [
        crate::initramfs::Compression::Gzip,
        crate::initramfs::Compression::Zstd,
        crate::initramfs::Compression::None,
    ] {
        let image = desk
            .initramfs
            .clone()
            .compression(compression)
            .build()
            .unwrap();
        let mut microcode = ima::cpio::Writer::new();
        microcode
            .entry(b"kernel", &Default::default(), b"")
            .unwrap();
        let early = [microcode.finish(), image.clone()].concat();
        for image in [image, early] {
            desk.initramfs = InitramfsBuilder::from_image(&image).unwrap();
            assert_eq!(desk.refusal(), None, "{compression:?}");
            assert_eq!(desk.initramfs.certificates(Purpose::Ima).len(), 1);
            assert!(desk.certificate.der().len() > 100);
        }
    }
    for bad in [&b""[..], b"\x1f\x8bnothing", b"070701zz", &[0; 512]] {
        let fault = InitramfsBuilder::from_image(bad).unwrap_err();
        assert_eq!(fault.code(), Code::SourceMalformed);
    }
}

/// A cpio archive of one file.
fn archive(name: &[u8]) -> Vec<u8> {
    let metadata = ima::cpio::Metadata {
        mode: ima::cpio::S_IFREG | 0o644,
        ..Default::default()
    };
    let mut writer = ima::cpio::Writer::new();
    writer.entry(name, &metadata, &[b'x'; 3000]).unwrap();
    writer.finish()
}

/// What a program makes of the content.
fn packed(program: &str, content: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("content");
    std::fs::write(&path, content).unwrap();
    let ended = std::process::Command::new("sh")
        .args(["-c", &format!("{program} <content")])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    ended.stdout
}

#[test]
fn each_compressed_part_of_an_initramfs_holds_whole_archives() {
    let (one, other) = (archive(b"one"), archive(b"other"));
    let frames = |parts: &[&[u8]]| -> Vec<u8> {
        let frames = parts
            .iter()
            .map(|part| zstd::bulk::compress(part, 3).unwrap());
        frames.collect::<Vec<_>>().concat()
    };
    let (first, rest) = one.split_at(1000);
    let plain_behind = {
        let mut image = frames(&[&one]);
        image.resize(image.len().next_multiple_of(4), 0);
        [image, other.clone()].concat()
    };
    for (image, good) in [
        (frames(&[&one, &other]), true),
        (frames(&[&[one.clone(), other.clone()].concat()]), true),
        (
            [frames(&[&one]), vec![0; 9], frames(&[&other])].concat(),
            true,
        ),
        ([one.clone(), frames(&[&other])].concat(), true),
        (plain_behind, true),
        (frames(&[first, rest, &other]), false),
        ([one.clone(), vec![0; 2], frames(&[&other])].concat(), false),
    ] {
        match (InitramfsBuilder::from_image(&image), good) {
            (Ok(_), true) => {}
            (Err(fault), false) => assert_eq!(fault.code(), Code::SourceMalformed),
            (result, _) => panic!("{:?}", result.map(drop)),
        }
    }
}

#[test]
fn an_initramfs_that_the_kernel_does_not_unpack() {
    let mut desk = Desk::new();
    let plain = desk
        .initramfs
        .clone()
        .compression(crate::initramfs::Compression::None)
        .build()
        .unwrap();
    for (program, option) in [
        ("gzip", "RD_GZIP"),
        ("zstd", "RD_ZSTD"),
        ("xz --check=crc32", "RD_XZ"),
        ("xz --format=lzma", "RD_LZMA"),
        ("lz4 -l", "RD_LZ4"),
    ] {
        desk.initramfs = InitramfsBuilder::from_image(&packed(program, &plain)).unwrap();
        for set in [true, false] {
            let mut config = "CONFIG_X=y\n".to_owned();
            if set {
                config += &format!("CONFIG_{option}=y\n");
            }
            let kernel = KernelConfig::parse(config.as_bytes()).unwrap();
            let found = check(&Inputs {
                initramfs: Some(&desk.initramfs),
                kernel: Some(&kernel),
                ..Inputs::default()
            });
            let refused = found.refusal().map(Fault::code) == Some(Code::InitramfsPacking);
            assert_eq!(refused, !set, "{program}");
        }
    }
    for (image, named) in [
        (packed("bzip2", &plain), "bzip2"),
        (packed("xz", &plain), "--check=crc32"),
        (b"MZ".to_vec(), "EFI program"),
        (b"\x7fELF and more".to_vec(), "ELF"),
        (b"\xd0\x0d\xfe\xed".to_vec(), "FIT"),
    ] {
        let fault = InitramfsBuilder::from_image(&image).unwrap_err();
        assert_eq!(fault.code(), Code::SourceMalformed);
        assert!(fault.to_string().contains(named), "{fault}");
    }
}

#[test]
fn what_the_kernel_mounts_depends_on_its_options() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::create_dir(at.join("root")).unwrap();
    std::fs::write(at.join("root/file"), vec![b'x'; 100_000]).unwrap();
    let all = [
        "SQUASHFS",
        "SQUASHFS_ZLIB",
        "SQUASHFS_LZO",
        "SQUASHFS_XZ",
        "SQUASHFS_LZ4",
        "SQUASHFS_ZSTD",
        "EROFS_FS",
        "EROFS_FS_ZIP",
        "EXT4_FS",
        "UNICODE",
    ];
    for (command, needed) in [
        (
            "mksquashfs root image -quiet -comp gzip",
            &["SQUASHFS", "SQUASHFS_ZLIB"][..],
        ),
        (
            "mksquashfs root image -quiet -comp lzo",
            &["SQUASHFS", "SQUASHFS_LZO"],
        ),
        (
            "mksquashfs root image -quiet -comp xz",
            &["SQUASHFS", "SQUASHFS_XZ"],
        ),
        (
            "mksquashfs root image -quiet -comp lz4",
            &["SQUASHFS", "SQUASHFS_LZ4"],
        ),
        (
            "mksquashfs root image -quiet -comp zstd",
            &["SQUASHFS", "SQUASHFS_ZSTD"],
        ),
        ("mkfs.erofs --quiet image root", &["EROFS_FS"]),
        (
            "mkfs.erofs --quiet -zlz4 image root",
            &["EROFS_FS", "EROFS_FS_ZIP"],
        ),
        (
            "mkfs.erofs --quiet -zlz4hc image root",
            &["EROFS_FS", "EROFS_FS_ZIP"],
        ),
        ("mke2fs -q -t ext4 image 16M", &["EXT4_FS"]),
        ("mke2fs -q -t ext2 image 16M", &["EXT4_FS"]),
        (
            "mke2fs -q -t ext4 -O casefold image 16M",
            &["EXT4_FS", "UNICODE"],
        ),
    ] {
        let image = at.join("image");
        let _ = std::fs::remove_file(&image);
        let mut words = command.split(' ');
        let ended = std::process::Command::new(words.next().unwrap())
            .args(words)
            .current_dir(at)
            .output()
            .expect(command);
        assert!(ended.status.success(), "{ended:?}");
        let head = std::fs::read(&image).unwrap();
        let superblocks = filesystem::probe(&head);
        let desk = Desk::new();
        let root = Root {
            needs: filesystem::needs(&head),
            filesystem: FileSystem::by_name(superblocks[0].kind.name()).unwrap(),
            superblocks: Some(superblocks),
            ..desk.root.clone()
        };
        for lacking in all {
            let config: String = all
                .iter()
                .filter(|option| **option != lacking)
                .map(|option| format!("CONFIG_{option}=y\n"))
                .collect();
            let kernel = KernelConfig::parse(config.as_bytes()).unwrap();
            let found = check(&Inputs {
                initramfs: Some(&desk.initramfs),
                root: Some(&root),
                kernel: Some(&kernel),
                ..Inputs::default()
            });
            let mount = found
                .faults
                .iter()
                .find(|fault| fault.code() == Code::RootMount);
            assert_eq!(
                mount.is_some(),
                needed.contains(&lacking),
                "{command} without {lacking}"
            );
        }
    }
}

#[test]
fn drivers_that_are_modules_must_be_loaded() {
    let module = |name: &str| desk_module(name, "6.12.1 SMP mod_unload ");
    let of = |config: &str, desk: &Desk, line: &str| {
        let kernel = KernelConfig::parse(config.as_bytes()).unwrap();
        let found = check(&Inputs {
            initramfs: Some(&desk.initramfs),
            root: Some(&desk.root),
            kernel: Some(&kernel),
            command_line: Some(line),
            ..Inputs::default()
        });
        let codes = [Code::RootMissing, Code::RootMount];
        let mut faults = found.faults.into_iter().map(|fault| fault.code());
        faults.find(|code| codes.contains(code))
    };
    let mut desk = Desk::new();
    let rest = "CONFIG_MODULES=y\nCONFIG_PAGE_SHIFT=12\n";
    let ext4 = format!("CONFIG_EXT4_FS=m\n{rest}");
    assert_eq!(of(&ext4, &desk, LINE), Some(Code::RootMount));
    let disk = format!("CONFIG_EXT4_FS=y\nCONFIG_VIRTIO_BLK=m\n{rest}");
    assert_eq!(of(&disk, &desk, "root=/dev/vda2"), Some(Code::RootMissing));
    assert_eq!(of(&disk, &desk, LINE), None);
    for name in ["ext4", "virtio_blk"] {
        desk.initramfs = desk
            .initramfs
            .module(&format!("{name}.ko"), module(name))
            .compression(crate::initramfs::Compression::None);
    }
    desk.initramfs = InitramfsBuilder::from_image(&desk.initramfs.build().unwrap()).unwrap();
    assert_eq!(of(&ext4, &desk, LINE), None);
    assert_eq!(of(&disk, &desk, "root=/dev/vda2"), None);
    desk.root.needs = vec![Need::PageSize(65_536, None)];
    assert_eq!(of(&ext4, &desk, LINE), Some(Code::RootMount));
    let large = ext4.replace("SHIFT=12", "SHIFT=16");
    assert_eq!(of(&large, &desk, LINE), None);
    desk.root.needs = vec![Need::PageSize(
        65_536,
        Some(ima::release::Release {
            major: 6,
            minor: 19,
        }),
    )];
    assert_eq!(of(&ext4, &desk, LINE), Some(Code::RootMount));
    let newer = format!("# Linux/x86 6.19.0 Kernel Configuration\n{ext4}");
    assert_eq!(of(&newer, &desk, LINE), None);
}

/// There is no device to wait for: the mount fails, as in the boot.
#[test]
fn drivers_of_a_root_that_the_host_shares() {
    for (name, option) in [("virtiofs:root", "VIRTIO_FS"), ("9p:root", "NET_9P_VIRTIO")] {
        let mut desk = Desk::new();
        desk.initramfs = desk.initramfs.config(format!("root={name}\n"));
        let of = |driver: &str| {
            let config = format!("CONFIG_EXT4_FS=y\n{driver}\n");
            let kernel = KernelConfig::parse(config.as_bytes()).unwrap();
            let found = check(&Inputs {
                initramfs: Some(&desk.initramfs),
                root: Some(&desk.root),
                kernel: Some(&kernel),
                command_line: Some(""),
                ..Inputs::default()
            });
            let codes = [Code::RootMissing, Code::RootMount];
            let mut faults = found.faults.into_iter().map(|fault| fault.code());
            faults.find(|code| codes.contains(code))
        };
        assert_eq!(of(""), Some(Code::RootMount), "{name}");
        assert_eq!(of(&format!("CONFIG_{option}=y")), None, "{name}");
    }
}

/// A relocatable ELF file with a `.modinfo` and no section headers to speak of.
fn desk_module(name: &str, vermagic: &str) -> Vec<u8> {
    let mut elf = vec![0; 128];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[16] = 1;
    elf[40] = 64;
    elf[58] = 64;
    elf[60] = 1;
    elf.extend(format!("\0depends=\0name={name}\0vermagic={vermagic}\0").bytes());
    elf
}

/// Kernels before 6.10 do not know the curve (`x509_extract_key_data`).
#[test]
fn a_curve_that_the_kernel_does_not_know() {
    let desk = Desk::with_keys(KeyKind::P521);
    for (release, refusal) in [
        (None, None),
        (Some("6.12.1"), None),
        (Some("6.1.0-56-amd64"), Some(Code::CertificateRefused)),
    ] {
        let release = release.map(|name: &str| KernelRelease {
            name: name.to_owned(),
            vermagic: None,
        });
        let found = check(&Inputs {
            initramfs: Some(&desk.initramfs),
            root: Some(&desk.root),
            kernel: None,
            release: release.as_ref(),
            authorities: Some(std::slice::from_ref(&desk.authority)),
            owner_keys: &[],
            command_line: Some(LINE),
            boot_image: None,
        });
        assert_eq!(found.refusal().map(Fault::code), refusal, "{release:?}");
        if let Some(fault) = found.refusal() {
            assert!(fault.cause().contains("needs Linux 6.10"), "{fault}");
        }
    }
}

#[test]
fn a_kernel_that_takes_certificates_for_root_hashes() {
    const BUILT_IN: &str = "CONFIG_DM_VERITY=y\nCONFIG_DM_VERITY_VERIFY_ROOTHASH_SIG=y\n";
    const MODULE: &str = "CONFIG_DM_VERITY=m\nCONFIG_DM_VERITY_VERIFY_ROOTHASH_SIG=y\n";
    const OPEN: &str = "dm_verity.keyring_unsealed=1";
    let desk = Desk::new();
    let initramfs = desk
        .initramfs
        .clone()
        .certificate("x509_verity.der", desk.certificate.der());
    for (config, release, line, cause) in [
        (BUILT_IN, "7.2.13", Some(OPEN), None),
        (BUILT_IN, "7.0.0", None, None),
        (BUILT_IN, "7.2.13", Some(LINE), Some("sealed")),
        (MODULE, "7.2.13", Some(OPEN), Some("sealed")),
        (BUILT_IN, "6.19.1", Some(OPEN), Some("has no keyring")),
        (
            "CONFIG_DM_VERITY=y\n",
            "7.2.13",
            Some(OPEN),
            Some("has no keyring"),
        ),
    ] {
        let release = KernelRelease {
            name: release.to_owned(),
            vermagic: None,
        };
        let inputs = Inputs {
            initramfs: Some(&initramfs),
            kernel: Some(&KernelConfig::parse(config.as_bytes()).unwrap()),
            release: Some(&release),
            command_line: line,
            ..Inputs::default()
        };
        let count = usize::from(cause.is_none());
        assert_eq!(
            inputs.verity_certificates().len(),
            count,
            "{release:?} {line:?}"
        );
        let found = check(&inputs);
        let mut warnings = found.faults.iter();
        let warning = warnings.find(|fault| fault.code() == Code::VerityKeyringClosed);
        match (warning, cause) {
            (None, None) => {}
            (Some(fault), Some(cause)) => assert!(fault.cause().contains(cause), "{fault}"),
            other => panic!("{release:?} {line:?}: {other:?}"),
        }
    }
}

#[test]
fn modules_of_another_release() {
    let release = |vermagic: Option<&str>| KernelRelease {
        name: "6.12.1".to_owned(),
        vermagic: vermagic.map(str::to_owned),
    };
    let own = "6.12.1 SMP mod_unload ";
    let plain = "CONFIG_MODULES=y\n";
    let versions = "CONFIG_MODULES=y\nCONFIG_MODVERSIONS=y\n";
    for (magic, release, config, good) in [
        (own, release(Some(own)), plain, true),
        ("6.12.2 SMP mod_unload ", release(Some(own)), plain, false),
        (
            "6.12.1 SMP preempt mod_unload ",
            release(Some(own)),
            plain,
            false,
        ),
        ("6.12.2 SMP mod_unload ", release(Some(own)), versions, true),
        ("6.12.2 mod_unload ", release(Some(own)), versions, false),
        ("6.12.1 preempt ", release(None), plain, true),
        ("6.12.2 preempt ", release(None), plain, false),
        (own, release(Some(own)), "CONFIG_MODULE_SIG=y\n", false),
        (
            own,
            release(Some(own)),
            "CONFIG_MODULES=y\nCONFIG_MODULE_SIG_FORCE=y\n",
            false,
        ),
    ] {
        let desk = Desk::new();
        let image = desk
            .initramfs
            .module("dummy.ko", desk_module("dummy", magic))
            .build()
            .unwrap();
        let initramfs = InitramfsBuilder::from_image(&image).unwrap();
        let found = check(&Inputs {
            initramfs: Some(&initramfs),
            kernel: Some(&KernelConfig::parse(config.as_bytes()).unwrap()),
            release: Some(&release),
            ..Inputs::default()
        });
        let mut codes = found.faults.iter().map(Fault::code);
        let refused = codes.any(|code| code == Code::ModuleRefused);
        assert_eq!(refused, !good, "{magic} {release:?} {config}");
    }
}

#[test]
fn a_kernel_that_is_none_is_named() {
    let image = |at: usize, magic: &[u8]| {
        let mut image = vec![0; 1024];
        image[at..at + magic.len()].copy_from_slice(magic);
        image
    };
    let mut unified = image(0, b"MZ");
    unified[0x3c] = 0x80;
    unified[0x80..0x84].copy_from_slice(b"PE\0\0");
    unified[0x86] = 1;
    unified[0x98..0x9e].copy_from_slice(b".linux");
    for (file, named) in [
        (unified, "a unified kernel image"),
        (archive(b"init"), "an initramfs"),
        (
            packed("zstd", &archive(b"init")),
            "an initramfs (a cpio archive), compressed with zstd",
        ),
        (
            packed("gzip", &archive(b"init")),
            "an initramfs (a cpio archive), compressed with gzip",
        ),
        (
            packed("gzip", &image(0x24, b"\x18\x28\x6f\x01")),
            "an ARM zImage, compressed with gzip",
        ),
        (packed("gzip", b"text"), "compressed with gzip"),
    ] {
        let fault = KernelConfig::parse(&file).unwrap_err();
        assert!(fault.to_string().contains(named), "{fault}");
        let fault = KernelConfig::in_image(&file).unwrap_err();
        assert!(fault.to_string().contains(named), "{fault}");
    }
}

#[test]
fn the_policy_that_systemd_loads_itself() {
    const RULE: &[u8] = b"measure func=MODULE_CHECK\n";
    let of = |desk: &Desk, config: &str| {
        let kernel = KernelConfig::parse(config.as_bytes()).unwrap();
        let found = check(&Inputs {
            initramfs: Some(&desk.initramfs),
            root: Some(&desk.root),
            kernel: Some(&kernel),
            ..Inputs::default()
        });
        let mut codes = found.faults.iter().map(Fault::code);
        codes.any(|code| code == Code::SystemdPolicy)
    };
    let writable = "CONFIG_IMA_WRITE_POLICY=y\n";
    let with = |text: &[u8]| {
        let mut desk = Desk::new();
        desk.put(b"usr/lib/systemd/systemd", 0o755, &program());
        desk.link(INIT, b"/usr/lib/systemd/systemd");
        desk.put(b"etc/ima/ima-policy", 0o644, text);
        desk
    };
    assert!(!of(&with(RULE), writable));
    let mut desk = with(RULE);
    desk.unsign(b"etc/ima/ima-policy");
    assert!(of(&desk, writable), "unsigned");
    assert!(!of(&desk, "CONFIG_IMA=y\n"), "it can be written once");
    assert!(of(&with(b"measure func=NOTHING\n"), writable), "a bad rule");
    assert!(of(&with(RULE.trim_ascii_end()), writable), "no newline");
    let mut desk = with(b"");
    desk.unsign(b"etc/ima/ima-policy");
    assert!(!of(&desk, writable), "empty");
    let mut desk = with(RULE);
    desk.unsign(b"etc/ima/ima-policy");
    desk.put(INIT, 0o755, &program());
    assert!(!of(&desk, writable), "another init");
    // Under a policy that leaves policies alone, systemd writes the rules one by one.
    let open = b"appraise func=BPRM_CHECK appraise_type=imasig\n";
    for (text, refused) in [
        (RULE, false),
        (RULE.trim_ascii_end(), false),
        (b"bad\n", true),
    ] {
        let mut desk = with(text);
        desk.unsign(b"etc/ima/ima-policy");
        desk.initramfs = desk.initramfs.default_policy(open);
        assert_eq!(of(&desk, writable), refused);
    }
}

/// What systemd would start of it.
fn services(desk: &Desk) -> Vec<(String, String)> {
    let mut found: Vec<_> = desk
        .check(LINE)
        .services
        .into_iter()
        .map(|denied| (denied.unit, denied.program))
        .collect();
    found.sort();
    found
}

#[test]
fn what_systemd_starts_and_the_policy_denies_is_named_by_unit() {
    let mut desk = Desk::new();
    let units = "usr/lib/systemd/system";
    let unit = |desk: &mut Desk, name: &str, text: &str| {
        desk.put(format!("{units}/{name}").as_bytes(), 0o644, text.as_bytes());
    };
    desk.link(
        b"etc/systemd/system/default.target",
        b"/usr/lib/systemd/system/multi.target",
    );
    unit(
        &mut desk,
        "multi.target",
        "[Unit]\nRequires=wanted.service\nWants = listed.service \\\n# a comment\n  second.service\n",
    );
    unit(
        &mut desk,
        "wanted.service",
        "[Service]\nExecStart=-/usr/bin/wanted --option\n",
    );
    unit(
        &mut desk,
        "listed.service",
        "[Service]\nExecStartPre=@\"/usr/bin/quoted\" name\nExecStart=by-name\n",
    );
    unit(
        &mut desk,
        "second.service",
        "[Service]\nExecStart=/usr/bin/replaced\nExecReload=/usr/bin/reload\n",
    );
    desk.put(
        b"etc/systemd/system/second.service.d/10-own.conf",
        0o644,
        b"[Service]\nExecStart=\nExecStart=/usr/bin/own\n",
    );
    unit(
        &mut desk,
        "elsewhere.service",
        "[Service]\nExecStart=/usr/bin/elsewhere\n",
    );
    unit(
        &mut desk,
        "shell@.service",
        "[Service]\nExecStart=/usr/bin/shell %i\n",
    );
    desk.link(
        b"etc/systemd/system/multi.target.wants/shell@tty1.service",
        b"/usr/lib/systemd/system/shell@.service",
    );
    desk.link(
        b"etc/systemd/system/multi.target.wants/masked.service",
        b"/dev/null",
    );
    desk.link(b"etc/systemd/system/masked.service", b"/dev/null");
    unit(
        &mut desk,
        "masked.service",
        "[Service]\nExecStart=/usr/bin/masked\n",
    );
    unit(&mut desk, "sysinit.target", "[Unit]\nWants=bus.socket\n");
    unit(&mut desk, "bus.socket", "[Socket]\nListenStream=/run/bus\n");
    unit(
        &mut desk,
        "bus.service",
        "[Service]\nExecStart=/usr/bin/bus\n",
    );
    let programs = [
        "wanted",
        "quoted",
        "by-name",
        "replaced",
        "reload",
        "own",
        "elsewhere",
        "shell",
        "masked",
        "bus",
    ];
    for name in programs {
        desk.put(format!("usr/bin/{name}").as_bytes(), 0o755, &program());
    }
    desk.put(b"usr/lib/systemd/system-generators/gen", 0o755, &program());
    assert_eq!(services(&desk), []);
    for name in programs {
        desk.unsign(format!("usr/bin/{name}").as_bytes());
    }
    desk.unsign(b"usr/lib/systemd/system-generators/gen");
    let expected = [
        ("bus.service", "/usr/bin/bus"),
        ("generator", "/usr/lib/systemd/system-generators/gen"),
        ("listed.service", "/usr/bin/by-name"),
        ("listed.service", "/usr/bin/quoted"),
        ("second.service", "/usr/bin/own"),
        ("shell@tty1.service", "/usr/bin/shell"),
        ("wanted.service", "/usr/bin/wanted"),
    ];
    assert_eq!(
        services(&desk),
        expected.map(|(unit, program)| (unit.to_owned(), program.to_owned()))
    );
}

#[test]
fn a_service_whose_interpreter_or_library_is_denied_is_named() {
    let mut desk = Desk::new();
    let read = |path: &str| std::fs::read(path).unwrap();
    desk.put(
        b"usr/lib/systemd/system/default.target",
        0o644,
        b"[Unit]\nWants=script.service dynamic.service\n",
    );
    desk.put(
        b"usr/lib/systemd/system/script.service",
        0o644,
        b"[Service]\nExecStart=/usr/bin/script\n",
    );
    desk.put(
        b"usr/lib/systemd/system/dynamic.service",
        0o644,
        b"[Service]\nExecStart=/usr/bin/dynamic\n",
    );
    desk.put(b"usr/bin/script", 0o755, b"#!/usr/bin/interpreter\n");
    desk.put(b"usr/bin/interpreter", 0o755, &program());
    desk.put(b"usr/bin/dynamic", 0o755, &read("/bin/true"));
    let loader = b"lib64/ld-linux-x86-64.so.2";
    desk.put(loader, 0o755, &read("/lib64/ld-linux-x86-64.so.2"));
    let libc = b"lib/libc.so.6";
    desk.put(libc, 0o644, &read("/lib/x86_64-linux-gnu/libc.so.6"));
    assert_eq!(services(&desk), []);
    desk.unsign(b"usr/bin/interpreter");
    desk.unsign(libc);
    let found = desk.check(LINE).services;
    let causes: Vec<&str> = found.iter().map(|denied| denied.cause.as_str()).collect();
    assert_eq!(
        causes,
        [
            "/lib/libc.so.6: no signature",
            "/usr/bin/interpreter: no signature"
        ]
    );
}

/// What is found of a unified kernel image with an initramfs that boots: the codes with their causes, and what fixes the command
/// line.
fn of_image(
    image: &[u8],
    trusted: Option<&Certificate>,
    kernel: Option<&KernelConfig>,
) -> (Vec<(Code, Option<Cause>)>, Option<FixedBy>) {
    let image = UnifiedKernelImage::parse(image).unwrap();
    let initramfs = InitramfsBuilder::from_image(image.initramfs().unwrap()).unwrap();
    let found = check(&Inputs {
        initramfs: Some(&initramfs),
        kernel,
        command_line: image.command_line(),
        boot_image: Some(BootImage {
            image: &image,
            trusted: trusted.map(std::slice::from_ref),
            revoked: None,
        }),
        ..Inputs::default()
    });
    let of_image = [
        Code::UkiUntrusted,
        Code::CommandLineOpen,
        Code::UkiWithoutSbat,
    ];
    let faults = found.faults.iter();
    let codes = faults
        .filter(|fault| of_image.contains(&fault.code()))
        .map(|fault| (fault.code(), fault.found()))
        .collect();
    (codes, found.command_line)
}

#[test]
fn a_unified_kernel_image_and_its_signature() {
    let desk = Desk::new();
    let initramfs = desk.initramfs.build().unwrap();
    let made = |line: Option<&str>| {
        let builder = Builder::new(testing::stub(), testing::kernel()).initramfs(&initramfs);
        let builder = match line {
            Some(line) => builder.command_line(line),
            None => builder,
        };
        builder.build().unwrap()
    };
    let (key, certificate) = key_of_firmware("db");
    let (_, other) = key_of_firmware("other");
    let signed = |image: &[u8]| authenticode::sign(image, &key, &certificate).unwrap();
    let unsigned = made(Some(LINE));
    let good = signed(&unsigned);
    let mut tampered = good.clone();
    let at = good
        .windows(LINE.len())
        .position(|text| text == LINE.as_bytes());
    tampered[at.unwrap()] ^= 1;
    let open = signed(&made(None));
    let fixed = KernelConfig::parse(b"CONFIG_ARM64=y\nCONFIG_CMDLINE_FORCE=y").unwrap();
    let untrusted = |cause| {
        vec![
            (Code::UkiUntrusted, Some(cause)),
            (Code::CommandLineOpen, Some(cause)),
        ]
    };
    let warned = |cause| vec![(Code::CommandLineOpen, Some(cause))];
    let (own, image) = (Some(&certificate), Some(FixedBy::Image));
    let nothing = Some(FixedBy::Nothing);
    let by_kernel = Some(FixedBy::Kernel("CONFIG_CMDLINE_FORCE"));
    type Row<'a> = (
        &'a str,
        &'a [u8],
        Option<&'a Certificate>,
        Option<&'a KernelConfig>,
        Vec<(Code, Option<Cause>)>,
        Option<FixedBy>,
    );
    let rows: [Row<'_>; 9] = [
        ("signed", &good, own, None, vec![], image),
        (
            "another key",
            &good,
            Some(&other),
            None,
            untrusted(Cause::UKI_OTHER_KEY),
            nothing,
        ),
        (
            "unsigned",
            &unsigned,
            own,
            None,
            untrusted(Cause::UKI_UNSIGNED),
            nothing,
        ),
        (
            "tampered with",
            &tampered,
            own,
            None,
            untrusted(Cause::UKI_CHANGED),
            nothing,
        ),
        (
            "no certificate",
            &good,
            None,
            None,
            warned(Cause::UKI_NOT_VERIFIED),
            nothing,
        ),
        (
            "neither",
            &unsigned,
            None,
            None,
            warned(Cause::UKI_UNSIGNED),
            nothing,
        ),
        (
            "no command line",
            &open,
            own,
            None,
            warned(Cause::UKI_WITHOUT_COMMAND_LINE),
            nothing,
        ),
        (
            "the kernel's own line",
            &unsigned,
            None,
            Some(&fixed),
            vec![],
            by_kernel,
        ),
        (
            "the kernel's own line, another key",
            &good,
            Some(&other),
            Some(&fixed),
            vec![(Code::UkiUntrusted, Some(Cause::UKI_OTHER_KEY))],
            by_kernel,
        ),
    ];
    for (name, image, trusted, kernel, codes, fixed) in rows {
        assert_eq!(of_image(image, trusted, kernel), (codes, fixed), "{name}");
    }
}

/// An image that is signed closes what a kernel without a command line of its own leaves open.
#[test]
fn the_signed_command_line_is_not_among_what_is_open() {
    let desk = Desk::new();
    let (key, certificate) = key_of_firmware("db");
    let image = Builder::new(testing::stub(), testing::kernel())
        .initramfs(desk.initramfs.clone().build().unwrap())
        .command_line(LINE)
        .build()
        .unwrap();
    let image = authenticode::sign(&image, &key, &certificate).unwrap();
    let image = UnifiedKernelImage::parse(&image).unwrap();
    let kernel = KernelConfig::parse(b"CONFIG_X86=y\nCONFIG_IMA=y").unwrap();
    for (trusted, is_open) in [
        (Some(std::slice::from_ref(&certificate)), false),
        (None, true),
    ] {
        let found = check(&Inputs {
            initramfs: Some(&desk.initramfs),
            kernel: Some(&kernel),
            command_line: image.command_line(),
            boot_image: Some(BootImage {
                image: &image,
                trusted,
                revoked: None,
            }),
            ..Inputs::default()
        });
        let open = found
            .faults
            .iter()
            .find(|fault| fault.code() == Code::KernelOpen);
        let names_line = open.unwrap().detail().contains("CONFIG_CMDLINE_OVERRIDE");
        assert_eq!(names_line, is_open);
    }
}

/// A key, and its own certificate.
fn key_of_firmware(name: &str) -> (FileKey, Certificate) {
    let key = FileKey::generate(KeyKind::Rsa(2048)).unwrap();
    let certificate = Template::leaf(name).sign(&key, None, None).unwrap();
    (key, certificate)
}

/// The CA is a key of the machine's owner, which the kernel takes onto `.machine` or not.
#[test]
fn keys_of_the_owner_vouch_if_the_kernel_takes_them() {
    let machine = "CONFIG_INTEGRITY_MACHINE_KEYRING=y\n\
                   CONFIG_IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY=y\n";
    let authorities = format!("{machine}CONFIG_INTEGRITY_CA_MACHINE_KEYRING=y\n");
    let alone = format!("{authorities}CONFIG_INTEGRITY_CA_MACHINE_KEYRING_MAX=y\n");
    let without = "CONFIG_IMA=y\n".to_owned();
    let ca_key = FileKey::generate(KeyKind::P256).unwrap();
    let make = |template: Template| template.sign(&ca_key, None, None).unwrap();
    let ca = make(Template::ca("CA"));
    let signs_more = make(Template {
        usage: Some(Usage {
            digital_signature: true,
            key_cert_sign: true,
        }),
        ..Template::ca("CA")
    });
    let key = FileKey::generate(KeyKind::P256).unwrap();
    let leaf = Template::leaf("leaf").sign(&key, Some((&ca_key, &ca)), None);
    let initramfs = InitramfsBuilder::new()
        .init(program())
        .certificate("x509_ima.der", leaf.unwrap().der())
        .default_policy(POLICY);
    let not_taken = Some(Cause::MOK_NOT_TAKEN);
    for (options, owner, built_in, expected) in [
        (&alone, &ca, false, None),
        (&alone, &signs_more, false, Some(not_taken)),
        (&alone, &signs_more, true, None),
        (&authorities, &signs_more, false, None),
        (&without, &ca, false, Some(Some(Cause::MOK_NO_KEYRING))),
        (&without, &ca, true, None),
        (
            &alone,
            &Desk::new().authority,
            false,
            Some(Some(Cause::ISSUER_NOT_IN_KERNEL)),
        ),
    ] {
        let options = format!("{options}CONFIG_CRYPTO_ECDSA=y\n");
        let kernel = KernelConfig::parse(options.as_bytes()).unwrap();
        let found = check(&Inputs {
            initramfs: Some(&initramfs),
            kernel: Some(&kernel),
            authorities: built_in.then_some(std::slice::from_ref(&ca)),
            owner_keys: std::slice::from_ref(owner),
            ..Inputs::default()
        });
        let mut faults = found.faults.iter();
        let refused = faults.find(|fault| fault.code() == Code::CertificateRefused);
        assert_eq!(refused.map(Fault::found), expected, "{options}{owner:?}");
    }
}

/// What the kernel demands of a policy under Secure Boot, by its own rules.
#[test]
fn a_kernel_with_rules_under_secure_boot_takes_only_a_signed_policy() {
    let desk = Desk::new();
    let (key, certificate) = key_of_firmware("db");
    let image = Builder::new(testing::stub(), testing::kernel())
        .initramfs(desk.initramfs.clone().build().unwrap())
        .command_line(LINE)
        .build()
        .unwrap();
    let image = authenticode::sign(&image, &key, &certificate).unwrap();
    let image = UnifiedKernelImage::parse(&image).unwrap();
    let with_rules = "CONFIG_IMA_ARCH_POLICY=y\nCONFIG_INTEGRITY_MACHINE_KEYRING=y\n\
                      CONFIG_IMA_KEYRINGS_PERMIT_SIGNED_BY_BUILTIN_OR_SECONDARY=y\n";
    let digest = Database::parse(crate::hex::encode(&image.image().digest()).as_bytes()).unwrap();
    let trusted = Some(std::slice::from_ref(&certificate));
    for (options, trusted, revoked, refused) in [
        (with_rules, trusted, None, true),
        (with_rules, None, None, false),
        // It does not start.
        (with_rules, trusted, Some(&digest), false),
        ("CONFIG_IMA_ARCH_POLICY=y\n", trusted, None, false),
    ] {
        let kernel = KernelConfig::parse(options.as_bytes()).unwrap();
        let found = check(&Inputs {
            initramfs: Some(&desk.initramfs),
            kernel: Some(&kernel),
            command_line: image.command_line(),
            boot_image: Some(BootImage {
                image: &image,
                trusted,
                revoked,
            }),
            ..Inputs::default()
        });
        let has = |code| found.faults.iter().any(|fault| fault.code() == code);
        assert_eq!(has(Code::PolicySignature), refused, "{options}");
        assert_eq!(has(Code::UkiUntrusted), revoked.is_some(), "{options}");
    }
}
