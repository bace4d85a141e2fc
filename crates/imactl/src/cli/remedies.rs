//! Remedies that lie in an option: the library does not know the options, so the command line adds them here.

use ima::fault::{Cause, Code, Fault};

/// Remedies of causes that were found out.
const OF_CAUSES: [(Cause, &str); 16] = [
    (
        Cause::BUILT_WITHOUT_PKCS11,
        "build it with the feature, or use --sign-command",
    ),
    (
        Cause::DIGEST_NOT_OF_VERITY,
        "use --hash sha256 or --hash sha512",
    ),
    (
        Cause::NO_BLOCK_DEVICE_IN_PARTITIONS,
        "give the directory or the archive that the root is made of, and --filesystem TYPE",
    ),
    (
        Cause::NO_CERTIFICATE_FOR_COMMAND,
        "give the certificate with --cert",
    ),
    (
        Cause::NO_KEY,
        "give --key KEY --cert CERTIFICATE, or --sign-command",
    ),
    (
        Cause::NO_PASSWORD,
        "give one with --password-file FILE or in EVMCTL_KEY_PASSWORD, or --unencrypted for keys without",
    ),
    (
        Cause::NO_RUNNING_CONFIGURATION,
        "give the kernel's .config with --config",
    ),
    (
        Cause::NO_SIGNED_ENTRY,
        "leave out --cert, or have the kernel record signatures (ima_template=ima-sig)",
    ),
    (
        Cause::NO_SYMBOLS,
        "give the description that the kernel's build left: --symbols extra-cert.json",
    ),
    (Cause::NO_TERMINAL, "run it on a terminal, or with --yes"),
    (
        Cause::PASSWORD_EMPTY,
        "give a password, or --unencrypted if that is what you want",
    ),
    (
        Cause::PIN_WRONG,
        "give it with pin-source= in the URI, with --password-file FILE or at the prompt",
    ),
    (
        Cause::PRIVATE_KEY_THERE,
        "choose another directory, or --force",
    ),
    (
        Cause::SETUP_NOT_AS_ROOT,
        "run it with sudo, or with --dry-run",
    ),
    (
        Cause::SEVERAL_FILE_SYSTEMS,
        "give the kernel command line: --append 'root=PARTUUID=...'",
    ),
    (
        Cause::SIGNER_WITHOUT_CERTIFICATE,
        "give the certificate with --cert",
    ),
];

/// Remedies of codes whose cause was not found out.
const OF_CODES: [(Code, &str); 6] = [
    (
        Code::KeyPassword,
        "give it with --password-file FILE, in EVMCTL_KEY_PASSWORD or at the prompt; the password of sample keys is: password",
    ),
    (
        Code::XattrUnwritable,
        "run as root on such a file system, write sidecar files with --sidecar, or let imactl image put the signatures into an image without privilege",
    ),
    (
        Code::InitramfsRefused,
        "correct the file named; --unchecked packs it all the same, for tests",
    ),
    (
        Code::ImageTooSmall,
        "give a larger --size, or none: it is then computed",
    ),
    (
        Code::PcrsUnreadable,
        "give a TPM (--tpm device:/dev/tpmrm0) or a file with PCRs (--pcrs sha256,FILE) of the machine that the list is from",
    ),
    (
        Code::MeasurementsMalformed,
        "give --bank for a list of another bank than SHA-1, --big-endian for one from such a machine",
    ),
];

/// The fault with the remedy that names options, where there is one and the fault still has the catalogue's.
pub fn with_options(fault: Fault) -> Fault {
    let cause = fault.found().filter(|cause| cause.remedy().is_some());
    let (own, known) = match cause {
        Some(cause) => (
            cause.remedy(),
            OF_CAUSES.iter().find(|(of, _)| *of == cause).map(|it| it.1),
        ),
        None => (
            Some(fault.code().entry().remedy),
            OF_CODES
                .iter()
                .find(|(of, _)| *of == fault.code())
                .map(|it| it.1),
        ),
    };
    match known.filter(|_| own == Some(fault.remedy())) {
        Some(remedy) => fault.with_remedy(remedy),
        None => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_named_unless_the_fault_has_a_remedy_of_its_own() {
        for (cause, remedy) in OF_CAUSES {
            for code in cause.codes() {
                let fault = Fault::new(*code, "").because(cause);
                assert_eq!(with_options(fault).remedy(), remedy);
            }
        }
        for (code, remedy) in OF_CODES {
            assert_eq!(with_options(Fault::new(code, "")).remedy(), remedy);
        }
        let own = Fault::new(Code::KernelImage, "")
            .because(Cause::NO_SYMBOLS)
            .with_remedy("name the CAs");
        assert_eq!(with_options(own.clone()), own);
        let locked = Fault::new(Code::KeyPassword, "").because(Cause::PIN_LOCKED);
        assert_eq!(with_options(locked.clone()), locked);
    }
}
