use std::sync::LazyLock;

use ima::certificate::Certificate;
use ima::fault::{Cause, Code};
use object::pe::{IMAGE_FILE_MACHINE_ARM64, IMAGE_FILE_MACHINE_I386};
use object::{Object as _, ObjectSection as _};
use proptest::prelude::*;

use super::authenticode::{self, Untrusted};
use super::database::Database;
use super::pe::{Image, NewSection, PeError, add_sections};
use super::testing::{HEADERS, MACHINE, MAGIC, SBAT, kernel, program, stub};
use super::{Builder, UnifiedKernelImage};
use crate::key::{FileKey, KeyKind, Signer};
use crate::x509::Template;

const LINE: &str = "root=/dev/vda ro";

fn builder() -> Builder {
    Builder::new(stub(), kernel())
        .initramfs(b"initramfs")
        .command_line(LINE)
        .os_release("ID=test\n")
}

/// A small image on another stub.
fn with_stub(stub: Vec<u8>) -> Builder {
    Builder::new(stub, kernel()).initramfs(b"i")
}

/// Where the header of a section of this name is: the first place that has the name.
fn header_of(image: &[u8], name: &[u8; 8]) -> usize {
    image.windows(8).position(|bytes| bytes == name).unwrap()
}

/// The message in the signed image.
fn message() -> Vec<u8> {
    Image::parse(&SIGNED).unwrap().messages().unwrap()[0].to_vec()
}

/// A key, and a certificate of it that a CA signed.
struct Key {
    key: FileKey,
    certificate: Certificate,
    authority: Certificate,
}

impl Key {
    fn new(kind: KeyKind) -> Self {
        let ca_key = FileKey::generate(KeyKind::Rsa(2048)).unwrap();
        let authority = Template::ca("CA").sign(&ca_key, None, None).unwrap();
        let key = FileKey::generate(kind).unwrap();
        let issuer = Some((&ca_key as &dyn Signer, &authority));
        let certificate = Template::leaf("db").sign(&key, issuer, None).unwrap();
        Self {
            key,
            certificate,
            authority,
        }
    }

    fn sign(&self, image: &[u8]) -> Vec<u8> {
        authenticode::sign(image, &self.key, &self.certificate).unwrap()
    }
}

static KEY: LazyLock<Key> = LazyLock::new(|| Key::new(KeyKind::Rsa(2048)));

static SIGNED: LazyLock<Vec<u8>> = LazyLock::new(|| KEY.sign(&builder().build().unwrap()));

fn verify(image: &[u8], trusted: &Certificate) -> Result<String, Untrusted> {
    let image = Image::parse(image).unwrap();
    let signer = authenticode::verify(&image, std::slice::from_ref(trusted))?;
    Ok(signer.subject())
}

#[test]
fn an_image_has_what_was_put_in() {
    let uki = SIGNED.as_slice();
    let uki = UnifiedKernelImage::parse(uki).unwrap();
    assert!(uki.kernel().starts_with(&kernel()));
    assert_eq!(uki.initramfs().unwrap(), b"initramfs");
    assert_eq!(uki.command_line(), Some(LINE));
    assert_eq!(uki.os_release().as_deref(), Some("ID=test\n"));
    assert_eq!(uki.uname().as_deref(), Some("6.1.0-test"));
    assert_eq!(uki.sbat().as_deref(), Some(SBAT));
    assert_eq!(uki.stub_version().as_deref(), Some("252.1-test"));
    assert_eq!(uki.warning(), None);
    assert!(uki.image().is_signed());
}

#[test]
fn the_layout_is_the_one_that_the_stub_needs() {
    let image = builder().section(".pcrsig", b"{}").build().unwrap();
    let before = stub();
    let before = Image::parse(&before).unwrap();
    let uki = Image::parse(&image).unwrap();
    let (own, added) = uki.sections().split_at(before.sections().len());
    assert_eq!(own, before.sections());
    let names: Vec<_> = added.iter().map(|section| section.name.as_str()).collect();
    assert_eq!(
        names,
        [
            ".cmdline", ".osrel", ".pcrsig", ".uname", ".initrd", ".linux"
        ]
    );
    let mut end = 0;
    for section in uki.sections() {
        assert_eq!(section.address % 4096, 0, "{section:?}");
        assert!(section.address >= end, "{section:?}");
        end = section.address + section.size;
    }
    // The kernel has the room in memory that its own headers name.
    let (_, room) = super::pe::machine_and_size(&kernel()).unwrap();
    assert!(room > 3000, "{room}");
    assert_eq!(added.last().unwrap().size, room);
    let (_, whole) = super::pe::machine_and_size(&image).unwrap();
    assert!(whole >= end && whole < end + 4096, "{whole} {end}");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    assert_eq!(builder().build(), builder().build());
    assert_eq!(*SIGNED, KEY.sign(&builder().build().unwrap()));
    // A signature is replaced, not added.
    assert_eq!(*SIGNED, KEY.sign(&SIGNED));
}

#[test]
fn several_initramfs_are_joined_at_multiples_of_four() {
    let image = builder().initramfs(b"second").build().unwrap();
    let uki = UnifiedKernelImage::parse(&image).unwrap();
    assert_eq!(uki.initramfs().unwrap(), b"initramfs\0\0\0second");
}

#[test]
fn what_no_image_is_made_of() {
    let with_kernel = |kernel: Vec<u8>| Builder::new(stub(), kernel).initramfs(b"i");
    let magic: (&str, &[u8]) = (".sdmagic", MAGIC);
    let mut gap = stub();
    // The last section is moved in the file: its `PointerToRawData` is changed, and zeros are put before its content.
    let entry = header_of(&gap, b".sdmagic");
    gap[entry + 21] += 2;
    let at = gap.windows(MAGIC.len()).position(|text| text == MAGIC);
    gap.splice(at.unwrap()..at.unwrap(), [0; 0x200]);
    let mut full = stub();
    let used = header_of(&full, b".sdmagic") + 40;
    full[used..0x400].fill(1);
    let mut huge = kernel();
    let size = HEADERS + 24 + 56;
    huge[size..size + 4].copy_from_slice(&0x7fff_f000_u32.to_le_bytes());
    let many = |count: u8| {
        (0..count).fold(builder(), |builder, number| {
            builder.section(&format!(".x{number}"), b"x")
        })
    };
    let stubs = [
        ("text", with_stub(b"text".to_vec()), Cause::PE_MALFORMED),
        (
            "cut off",
            with_stub(stub()[..0x500].to_vec()),
            Cause::PE_MALFORMED,
        ),
        (
            "PE32",
            with_stub(program(false, MACHINE, &[magic])),
            Cause::PE_32_BIT,
        ),
        (
            "another program",
            with_stub(kernel()),
            Cause::STUB_NOT_SYSTEMDS,
        ),
        (
            "another magic",
            with_stub(program(
                true,
                MACHINE,
                &[(".sdmagic", b"LoaderInfo: other 1 ####")],
            )),
            Cause::STUB_NOT_SYSTEMDS,
        ),
        ("a gap in the file", with_stub(gap), Cause::PE_LAYOUT),
        (
            "headers that are full",
            with_stub(full),
            Cause::STUB_NO_ROOM,
        ),
        ("more sections than fit", many(8), Cause::STUB_NO_ROOM),
        (
            "a signed stub",
            with_stub(KEY.sign(&stub())),
            Cause::STUB_SIGNED,
        ),
        (
            "an image as stub",
            with_stub(builder().build().unwrap()),
            Cause::STUB_HAS_SECTION,
        ),
    ];
    let inputs = [
        (
            "no UEFI kernel",
            with_kernel(b"\x7fELF".to_vec()),
            Cause::KERNEL_WITHOUT_EFI_STUB,
        ),
        (
            "a kernel for arm64",
            with_kernel(program(true, IMAGE_FILE_MACHINE_ARM64, &[])),
            Cause::UKI_MACHINES_DIFFER,
        ),
        (
            "a kernel for 32 bits",
            with_kernel(program(false, IMAGE_FILE_MACHINE_I386, &[])),
            Cause::UKI_MACHINES_DIFFER,
        ),
        (
            "too large in memory",
            with_kernel(huge),
            Cause::PE_TOO_LARGE,
        ),
        (
            "twice",
            builder().command_line("x"),
            Cause::UKI_SECTION_TWICE,
        ),
        (
            "the kernel twice",
            builder().section(".linux", b"x"),
            Cause::UKI_SECTION_TWICE,
        ),
        (
            "the stub's own",
            builder().section(".sbat", b"x"),
            Cause::UKI_SECTION_OWN,
        ),
        (
            "a name that the stub of systemd 252 takes for another",
            builder().section(".initrd2", b"x"),
            Cause::UKI_SECTION_PREFIX,
        ),
        (
            "no dot",
            builder().section("dtb", b"x"),
            Cause::UKI_SECTION_NAME,
        ),
        (
            "a dot",
            builder().section(".", b"x"),
            Cause::UKI_SECTION_NAME,
        ),
        (
            "a long name",
            builder().section(".12345678", b"x"),
            Cause::UKI_SECTION_NAME,
        ),
        (
            "a zero in the name",
            builder().section(".a\0", b"x"),
            Cause::UKI_SECTION_NAME,
        ),
        (
            "no initramfs",
            Builder::new(stub(), kernel()),
            Cause::UKI_SECTION_EMPTY,
        ),
        (
            "an empty command line",
            with_stub(stub()).command_line(" "),
            Cause::UKI_SECTION_EMPTY,
        ),
        (
            "two lines",
            with_stub(stub()).command_line("ro\nquiet"),
            Cause::UKI_COMMAND_LINE,
        ),
    ];
    let stubs = stubs.map(|row| (Code::UkiStub, row));
    let inputs = inputs.map(|row| (Code::UkiInput, row));
    for (code, (name, builder, cause)) in stubs.into_iter().chain(inputs) {
        let fault = builder.build().expect_err(name);
        assert_eq!(
            (fault.code(), fault.found()),
            (code, Some(cause)),
            "{name}: {fault}"
        );
    }
}

#[test]
fn a_symbol_table_at_the_end_is_left_out() {
    let mut with_symbols = stub();
    let start = u32::try_from(with_symbols.len()).unwrap();
    with_symbols.extend([0; 18]);
    with_symbols.extend(4_u32.to_le_bytes());
    with_symbols[HEADERS + 12..HEADERS + 16].copy_from_slice(&start.to_le_bytes());
    with_symbols[HEADERS + 16] = 1;
    let image = with_stub(with_symbols.clone()).build();
    assert_eq!(image.unwrap(), with_stub(stub()).build().unwrap());
    // Whatever else follows the sections is not known to be without use.
    with_symbols.push(0);
    let fault = with_stub(with_symbols).build();
    assert_eq!(fault.unwrap_err().found(), Some(Cause::PE_MALFORMED));
}

#[test]
fn files_that_are_no_unified_kernel_image() {
    let line: (&str, &[u8]) = (".cmdline", b"ro");
    let linux: (&str, &[u8]) = (".linux", b"kernel");
    let mut overlapping = program(true, MACHINE, &[linux, line]);
    // The address in memory (`VirtualAddress`): that of the first section.
    let entry = header_of(&overlapping, b".cmdline");
    overlapping[entry + 13] = 0x10;
    for (name, bytes, cause) in [
        ("text", b"text".to_vec(), Cause::PE_MALFORMED),
        ("a kernel", kernel(), Cause::UKI_SECTION_MISSING),
        ("PE32", program(false, MACHINE, &[linux]), Cause::PE_32_BIT),
        (
            "two command lines",
            program(true, MACHINE, &[linux, line, line]),
            Cause::UKI_SECTION_TWICE,
        ),
        (
            "a second initramfs for the stub of systemd 252",
            program(
                true,
                MACHINE,
                &[linux, (".initrd", b"one"), (".initrd2", b"two")],
            ),
            Cause::UKI_SECTION_PREFIX,
        ),
        ("sections over one another", overlapping, Cause::PE_LAYOUT),
        (
            "no text",
            program(true, MACHINE, &[linux, (".cmdline", b"\xff")]),
            Cause::UKI_COMMAND_LINE,
        ),
    ] {
        let fault = UnifiedKernelImage::parse(&bytes).expect_err(name);
        assert_eq!(fault.code(), Code::UkiMalformed, "{name}");
        assert_eq!(fault.found(), Some(cause), "{name}: {fault}");
    }
    let bytes = program(
        true,
        MACHINE,
        &[linux, (".cmdline", b" ro quiet\n\0rdinit=/bin/sh")],
    );
    let uki = UnifiedKernelImage::parse(&bytes).unwrap();
    assert_eq!(uki.command_line(), Some("ro quiet"));
    assert_eq!(uki.initramfs().unwrap_err().code(), Code::UkiMalformed);
    assert_eq!(uki.warning().unwrap().code(), Code::UkiWithoutSbat);
    // The stub takes a section of no length in memory for none.
    let mut bytes = program(true, MACHINE, &[linux, line]);
    let entry = header_of(&bytes, b".cmdline");
    bytes[entry + 8] = 0;
    let uki = UnifiedKernelImage::parse(&bytes).unwrap();
    assert_eq!(uki.command_line(), None);
    let bytes = program(true, MACHINE, &[linux]);
    assert_eq!(
        UnifiedKernelImage::parse(&bytes).unwrap().command_line(),
        None
    );
}

#[test]
fn whose_signature_the_firmware_takes() {
    let other = Key::new(KeyKind::Rsa(3072));
    let name = Ok(KEY.certificate.subject());
    assert_eq!(verify(&SIGNED, &KEY.certificate), name);
    // The CA's certificate may be in the database as well.
    assert_eq!(verify(&SIGNED, &KEY.authority), name);
    let subject = KEY.certificate.subject();
    assert_eq!(
        verify(&SIGNED, &other.certificate),
        Err(Untrusted::OtherKey(subject))
    );
    let unsigned = builder().build().unwrap();
    assert_eq!(
        verify(&unsigned, &KEY.certificate),
        Err(Untrusted::Unsigned)
    );
    let others = other.sign(&unsigned);
    assert_eq!(
        verify(&others, &other.certificate),
        Ok(other.certificate.subject())
    );
}

#[test]
fn a_signature_of_another_image_does_not_hold() {
    let image = builder().section(".x", b"x").build().unwrap();
    let moved = super::pe::without_signature(&image).unwrap();
    let moved = super::pe::with_signature(moved, &message()).unwrap();
    assert_eq!(verify(&moved, &KEY.certificate), Err(Untrusted::Changed));
}

/// Replaces bytes that occur once.
#[track_caller]
fn replace(message: &mut [u8], old: &[u8], new: &[u8]) {
    let places = message.windows(old.len()).enumerate();
    let found: Vec<_> = places
        .filter_map(|(at, bytes)| (bytes == old).then_some(at))
        .collect();
    let [at] = found[..] else {
        panic!("{found:?}");
    };
    message[at..at + new.len()].copy_from_slice(new);
}

/// The digests in a message are replaced by those of another image, one after the other: each is covered by the next.
#[test]
fn the_digests_in_a_signature_are_signed() {
    use sha2::Digest as _;
    let image = builder().section(".x", b"x").build().unwrap();
    let image = super::pe::without_signature(&image).unwrap();
    let own = Image::parse(&image).unwrap().digest();
    let before = Image::parse(&SIGNED).unwrap();
    let mut message = message();
    // SpcIndirectDataContent ends with the digest, and the attribute is of all of it behind its tag and length.
    let start = message.windows(2).position(|bytes| bytes == [0x30, 0x25]);
    let end = message
        .windows(32)
        .position(|digest| digest == before.digest());
    let content = |message: &[u8]| {
        let start = start.unwrap() - 14;
        sha2::Sha256::digest(&message[start..end.unwrap() + 32])
    };
    let old = content(&message);
    let verified = |message: &[u8]| {
        let moved = super::pe::with_signature(image.clone(), message).unwrap();
        verify(&moved, &KEY.certificate)
    };
    replace(&mut message, &before.digest(), &own);
    assert_eq!(verified(&message), Err(Untrusted::Changed));
    let new = content(&message);
    replace(&mut message, &old, &new);
    assert!(super::authenticode::Signature::parse(&message).is_ok());
    assert_eq!(verified(&message), Err(Untrusted::Changed));
}

#[track_caller]
fn assert_malformed(message: &[u8]) {
    let error = authenticode::Signature::parse(message).unwrap_err();
    assert!(matches!(error, Untrusted::Malformed(_)), "{error:?}");
}

#[test]
fn messages_that_are_not_taken() {
    let original = message();
    // The type of the content in the attributes: the last of the two places with this identifier.
    let oid = b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x04";
    let places: Vec<usize> = (0..original.len())
        .filter(|at| original[*at..].starts_with(oid))
        .collect();
    assert_eq!(places.len(), 2);
    for at in places {
        let mut message = original.clone();
        message[at + oid.len() - 1] = 5;
        assert_malformed(&message);
    }
    for length in 0..original.len() - 8 {
        assert_malformed(&original[..length]);
    }
    let longer = [&original[..], b"more"].concat();
    assert!(authenticode::Signature::parse(&longer).is_err());
    let image = super::pe::without_signature(&SIGNED).unwrap();
    let large = super::pe::with_signature(image, &vec![0; 1 << 20]).unwrap();
    assert!(matches!(Image::parse(&large), Err(PeError::Malformed(_))));
}

#[test]
fn keys_that_the_firmware_does_not_take() {
    let image = builder().build().unwrap();
    let p256 = Key::new(KeyKind::P256);
    let fault = authenticode::sign(&image, &p256.key, &p256.certificate).unwrap_err();
    assert_eq!(fault.found(), Some(Cause::SECURE_BOOT_KEY));
    let fault = authenticode::sign(&image, &p256.key, &KEY.certificate).unwrap_err();
    assert_eq!(fault.code(), Code::KeyMismatch);
    let fault = authenticode::sign(b"text", &KEY.key, &KEY.certificate).unwrap_err();
    assert_eq!(fault.code(), Code::UkiMalformed);
}

/// Whether a changed image is refused: it is not parsed, or not verified.
fn is_refused(image: &[u8]) -> bool {
    let trusted = std::slice::from_ref(&KEY.certificate);
    !Image::parse(image).is_ok_and(|image| authenticode::verify(&image, trusted).is_ok())
}

#[test]
fn every_changed_byte_of_the_headers_is_noticed() {
    let not_covered = Image::parse(&SIGNED).unwrap().not_covered();
    for at in 0..0x400 {
        let mut image = SIGNED.clone();
        image[at] ^= 1;
        let [checksum, directory, _] = &not_covered;
        if checksum.contains(&at) {
            assert!(!is_refused(&image), "{at:#x}");
        } else {
            // The place of the signature is not signed, but without it there is no signature.
            assert!(is_refused(&image), "{at:#x} {directory:?}");
        }
    }
}

proptest! {
    /// What the signature covers cannot be changed, nor can anything be cut off or added.
    #[test]
    fn changed_images_are_refused(
        at in any::<prop::sample::Index>(),
        change in 1_u8..,
        more in proptest::collection::vec(any::<u8>(), 1..20),
        length in any::<prop::sample::Index>(),
    ) {
        let [_, _, table] = Image::parse(&SIGNED).unwrap().not_covered();
        let mut image = SIGNED.clone();
        let at = at.index(table.start);
        image[at] ^= change;
        let [checksum, ..] = Image::parse(&SIGNED).unwrap().not_covered();
        prop_assert_eq!(is_refused(&image), !checksum.contains(&at));
        prop_assert!(is_refused(&SIGNED[..length.index(SIGNED.len())]));
        prop_assert!(is_refused(&[&SIGNED[..], &more[..]].concat()));
    }

    /// Whatever is changed in a signature, it holds for no other image and for no other key.
    #[test]
    fn changed_signatures(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let [_, _, table] = Image::parse(&SIGNED).unwrap().not_covered();
        let mut image = SIGNED.clone();
        for (at, byte) in changes {
            image[table.start + at.index(table.len())] = byte;
        }
        if let Ok(image) = Image::parse(&image) {
            prop_assert!(authenticode::verify(&image, &[]).is_err());
        }
        image[0x500] ^= 1;
        prop_assert!(is_refused(&image));
    }

    /// What is built is read back, by this reader and by that of the crate object.
    #[test]
    fn images_are_read_back(
        initramfs in proptest::collection::vec(any::<u8>(), 1..5000),
        more in proptest::collection::vec(any::<u8>(), 1..2000),
        line in "[a-z=/ ]{0,40}[a-z]",
    ) {
        let image = Builder::new(stub(), kernel())
            .initramfs(&initramfs)
            .command_line(&line)
            .section(".splash", &more)
            .build()
            .unwrap();
        let image = KEY.sign(&image);
        let uki = UnifiedKernelImage::parse(&image).unwrap();
        prop_assert_eq!(uki.initramfs().unwrap(), initramfs.as_slice());
        prop_assert_eq!(uki.command_line(), Some(line.trim()));
        prop_assert_eq!(uki.image().content(".splash"), Some(more.as_slice()));
        let others = object::File::parse(image.as_slice()).unwrap();
        let expected = [(".initrd", &initramfs), (".splash", &more)];
        for (name, content) in expected {
            let section = others.section_by_name(name).unwrap();
            prop_assert_eq!(section.data().unwrap(), content.as_slice());
        }
    }

    /// A stub with any bytes in any places ends in an image that is read back, or in an error.
    #[test]
    fn changed_stubs(
        changes in proptest::collection::vec((0_usize..0x400, any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut stub = stub();
        for (at, byte) in changes {
            stub[at] = byte;
        }
        if cut {
            stub.truncate(length.index(stub.len()));
        }
        let section = NewSection { name: ".x", content: b"content", size: 9, code: false };
        if let Ok(made) = add_sections(&stub, &[section]) {
            let image = Image::parse(&made).unwrap();
            let last = image.sections().last().unwrap();
            prop_assert_eq!((last.name.as_str(), last.size), (".x", 9));
            prop_assert!(last.content.starts_with(b"content"));
        }
        let _ = authenticode::signatures(&match Image::parse(&stub) {
            Ok(image) => image,
            Err(_) => return Ok(()),
        });
    }

    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(Image::parse(&bytes).is_err());
        prop_assert!(authenticode::Signature::parse(&bytes).is_err());
    }
}

#[test]
fn an_error_says_what_does_not_fit() {
    let section = NewSection {
        name: ".x",
        content: b"x",
        size: 0,
        code: false,
    };
    let room = (0..40)
        .find(|count| add_sections(&stub(), &vec![section; *count]).is_err())
        .unwrap();
    let error = add_sections(&stub(), &vec![section; room]).unwrap_err();
    let expected = PeError::NoRoom {
        room: room - 1,
        wanted: room,
    };
    assert_eq!(error, expected);
}

/// An EFI signature list with these signatures, which have the same length.
fn signature_list(kind: &str, signatures: &[&[u8]]) -> Vec<u8> {
    let number = |length: usize| u32::try_from(length).unwrap().to_le_bytes();
    let each = 16 + signatures[0].len();
    let mut list = guid(kind);
    list.extend([28 + each * signatures.len(), 0, each].map(number).concat());
    for signature in signatures {
        list.extend([0; 16]);
        list.extend_from_slice(signature);
    }
    list
}

/// A GUID as it is stored.
fn guid(text: &str) -> Vec<u8> {
    let mut bytes = crate::hex::decode(text.replace('-', "")).unwrap();
    for group in [0..4, 4..6, 6..8] {
        bytes[group].reverse();
    }
    bytes
}

const X509: &str = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072";
const SHA256: &str = "c1c41626-504c-4092-aca9-41f936934328";
const X509_SHA256: &str = "3bd2a492-96c0-4079-b420-fcf98ef103ed";
const OF_ANOTHER_KIND: &str = "826ca512-cf10-4ac9-b187-be01496631bd";

/// What firmware and shim with this list say of the signed image.
fn revoked(list: &[u8]) -> Result<(), Untrusted> {
    let image = UnifiedKernelImage::parse(&SIGNED).unwrap();
    Database::parse(list).unwrap().check_not_revoked(&image)
}

#[test]
fn what_is_revoked_is_not_started() {
    let other = Key::new(KeyKind::Rsa(2048));
    let digest = Image::parse(&SIGNED).unwrap().digest();
    let in_hexadecimal = crate::hex::encode(&digest);
    let signer = |key: &Key| signature_list(X509, &[key.certificate.der()]);
    let authority = signature_list(X509, &[KEY.authority.der()]);
    let tbs = |certificate: &Certificate| {
        let digest = ima::hash::HashAlgorithm::Sha256.digest(certificate.tbs_der());
        // The time of the revocation is behind it.
        signature_list(X509_SHA256, &[&[digest.unwrap(), vec![0; 16]].concat()])
    };
    let by_certificate = |key: &Certificate| Untrusted::RevokedCertificate(key.subject());
    let by_digest = || Untrusted::RevokedDigest(in_hexadecimal.clone());
    let pem = crate::x509::pem(&KEY.certificate).unwrap();
    let generation = |component: &str, generation, oldest| Untrusted::RevokedGeneration {
        component: component.to_owned(),
        generation,
        oldest,
    };
    let attributes = [0x27, 0, 0, 0];
    for (list, expected) in [
        (
            signature_list(SHA256, &[&[0; 32], &digest]),
            Err(by_digest()),
        ),
        (signature_list(SHA256, &[&[0; 32]]), Ok(())),
        (
            format!("\n{}\n{in_hexadecimal}\n", "00".repeat(32)).into_bytes(),
            Err(by_digest()),
        ),
        (signer(&KEY), Err(by_certificate(&KEY.certificate))),
        (signer(&other), Ok(())),
        (pem, Err(by_certificate(&KEY.certificate))),
        (authority.clone(), Err(by_certificate(&KEY.authority))),
        (tbs(&KEY.certificate), Err(by_certificate(&KEY.certificate))),
        (tbs(&other.certificate), Ok(())),
        // The authority is not in the message, and firmware does not know its certificate either.
        (tbs(&KEY.authority), Ok(())),
        (
            [
                signature_list(OF_ANOTHER_KIND, &[&[0; 20]]),
                authority.clone(),
            ]
            .concat(),
            Err(by_certificate(&KEY.authority)),
        ),
        (
            [&attributes[..], &authority].concat(),
            Err(by_certificate(&KEY.authority)),
        ),
        (
            b"sbat,1,2024010100\nsystemd,2\n".to_vec(),
            Err(generation("systemd", 1, 2)),
        ),
        (
            b"\x06\0\0\0sbat,2,2024010100\n\n".to_vec(),
            Err(generation("sbat", 1, 2)),
        ),
        (b"sbat,1,2024010100\nsystemd,1\ngrub,9\n".to_vec(), Ok(())),
    ] {
        assert_eq!(revoked(&list), expected, "{list:?}");
    }
    let without = with_stub(program(
        true,
        MACHINE,
        &[(".text", &[0xf4; 9]), (".sdmagic", MAGIC)],
    ));
    let without = KEY.sign(&without.build().unwrap());
    let without = UnifiedKernelImage::parse(&without).unwrap();
    let generations = Database::parse(b"sbat,1,2024010100").unwrap();
    assert_eq!(
        generations.check_not_revoked(&without),
        Err(Untrusted::NoGenerations)
    );
}

#[test]
fn databases_are_read_in_each_form() {
    let list = signature_list(X509, &[KEY.certificate.der()]);
    let expected = Database {
        certificates: vec![KEY.certificate.clone()],
        ..Database::default()
    };
    // As sign-efi-sig-list writes it: the time, a signature with its length, revision, type and GUID.
    let mut update = vec![0; 16];
    update.extend(28_u32.to_le_bytes());
    update.extend([0, 2, 0xf1, 0x0e]);
    update.extend([0; 20]);
    update.extend(&list);
    for bytes in [&list, &[&[7, 0, 0, 0][..], &list].concat(), &update] {
        assert_eq!(Database::parse(bytes), Ok(expected.clone()));
        assert_eq!(
            Database::of_signature_lists(bytes),
            Some(Ok(expected.clone()))
        );
    }
    let header = {
        let mut list = list.clone();
        let length = u32::try_from(list.len()).unwrap() + 4;
        list[16..20].copy_from_slice(&length.to_le_bytes());
        list[20] = 4;
        list.splice(28..28, [0; 4]);
        list
    };
    assert_eq!(Database::parse(&header), Ok(expected));
    for bytes in [
        &b""[..],
        b"00112233",
        b"sbat,1\nsystemd,one\n",
        &list[..list.len() - 1],
        &[&list[..], b"x"].concat(),
        &signature_list(X509, &[b"no certificate"]),
    ] {
        let fault = Database::parse(bytes).unwrap_err();
        assert_eq!(fault.code(), Code::SecureBootDatabase);
    }
    for bytes in [&b"00112233"[..], KEY.certificate.der()] {
        assert_eq!(Database::of_signature_lists(bytes), None);
    }
}

proptest! {
    #[test]
    fn hostile_databases_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let _ = Database::parse(&bytes);
        let mut list = [
            signature_list(SHA256, &[&[1; 32], &[2; 32]]),
            signature_list(X509, &[KEY.certificate.der()]),
        ]
        .concat();
        let at = at.index(list.len());
        list[at] = value;
        let _ = Database::parse(&list);
    }
}
