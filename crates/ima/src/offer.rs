//! Certificates offered to a keyring: in which order, whether enough were taken, and which faults are reported. One
//! implementation of [`Keyring`] asks the running kernel; the other answers from the CAs of a kernel's image.

use crate::certificate::Certificate;
use crate::fault::{Cause, Code, Fault};
use crate::revocation::Revocations;

/// How many certificate files are offered to one keyring at most; a real root could have any number.
pub const MAX_FILES: usize = 64;

/// The largest certificate file that is read, in bytes.
pub const MAX_FILE: usize = 1 << 20;

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The initramfs, which the boot chain covers.
    Initramfs,
    /// The real root, which anybody may have written.
    Root,
}

impl Source {
    /// `initramfs` or `root`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initramfs => "initramfs",
            Self::Root => "root",
        }
    }
}

/// A file that may hold certificates.
#[derive(Debug, Clone)]
pub struct CertificateFile {
    /// Its path, for messages.
    pub path: String,
    /// Where it is.
    pub source: Source,
    /// What is in it, or why it cannot be read.
    pub content: Result<Vec<u8>, String>,
}

/// A keyring that certificates are offered to.
pub trait Keyring {
    /// Offers a certificate of the file `path`.
    ///
    /// # Errors
    ///
    /// The refusal.
    fn add(&mut self, path: &str, certificate: &Certificate) -> Result<(), Fault>;

    /// Offers bytes in which [`Certificate::parse_all`] finds no certificate; `true` if they are taken.
    fn add_unparsed(&mut self, bytes: &[u8]) -> bool;

    /// Keeps what came of a certificate; nothing is known of one that was not parsed.
    fn record(
        &mut self,
        file: &CertificateFile,
        certificate: Option<&Certificate>,
        refusal: Option<&Fault>,
    );

    /// Reports a warning.
    fn warn(&mut self, warning: Fault);

    /// Whether its keys verify signatures of files, which not every certificate is good for.
    fn is_for_files(&self) -> bool {
        true
    }
}

/// Offers certificates to one keyring.
#[derive(Debug)]
pub struct Offering<'a, K> {
    /// The keyring.
    pub keyring: K,
    /// What is not offered.
    pub revoked: &'a Revocations,
    /// The time, in seconds since 1970.
    pub now: u64,
    /// The certificates that were taken.
    pub taken: Vec<Certificate>,
}

impl<'a, K: Keyring> Offering<'a, K> {
    /// Begins with a keyring to which nothing was offered.
    pub const fn new(keyring: K, revoked: &'a Revocations, now: u64) -> Self {
        Self {
            keyring,
            revoked,
            now,
            taken: Vec::new(),
        }
    }

    /// Offers certificates of the initramfs, of which one at least must be taken, if there are any. What is not taken beside it is
    /// a warning.
    ///
    /// # Errors
    ///
    /// The first refusal if none was taken; [`Code::CertificateRevoked`] whatever else was.
    pub fn required(
        &mut self,
        files: impl IntoIterator<Item = CertificateFile>,
    ) -> Result<(), Fault> {
        let before = self.taken.len();
        let mut unparsed: usize = 0;
        let mut revoked = None;
        let mut refused = Vec::new();
        for file in files {
            match self.offer(&file) {
                Ok(Taken::Unparsed) => unparsed = unparsed.saturating_add(1),
                Ok(Taken::Parsed) => {}
                Err(fault) if fault.code() == Code::CertificateRevoked => {
                    revoked.get_or_insert(fault);
                }
                Err(fault) => refused.push(fault),
            }
        }
        if let Some(fault) = revoked {
            return Err(fault);
        }
        let mut refused = refused.into_iter();
        if self.taken.len() == before && unparsed == 0 {
            return refused.next().map_or(Ok(()), Err);
        }
        for fault in refused {
            self.skip(Source::Initramfs, &fault);
        }
        Ok(())
    }

    /// Offers certificates; the refusal of one is a warning.
    pub fn optional(&mut self, files: impl IntoIterator<Item = CertificateFile>) {
        for file in files {
            if let Err(fault) = self.offer(&file) {
                self.skip(file.source, &fault);
            }
        }
    }

    /// The certificates that were taken and that a signature can name: without a subject key identifier none finds them.
    pub fn usable(self) -> Vec<Certificate> {
        let mut taken = self.taken;
        taken.retain(|certificate| certificate.skid().is_some());
        taken
    }

    /// The refusal as a warning, with its cause.
    fn skip(&mut self, source: Source, fault: &Fault) {
        let code = match source {
            Source::Initramfs => Code::CertificateSkipped,
            Source::Root if fault.code() == Code::CertificateRevoked => {
                Code::RootCertificateRevoked
            }
            Source::Root => Code::RootCertificate,
        };
        let warning = Fault::new(code, fault.detail()).caused_by(fault);
        self.keyring.warn(warning);
    }

    /// Offers all certificates of one file, of which one at least must be taken.
    fn offer(&mut self, file: &CertificateFile) -> Result<Taken, Fault> {
        let path = &file.path;
        let invalid = |why: &dyn std::fmt::Display| {
            Fault::new(Code::CertificateInvalid, format!("{path}: {why}"))
        };
        let bytes = file.content.as_ref().map_err(|why| invalid(why))?;
        let parsed = match Certificate::parse_all(bytes) {
            Ok(certificates) => certificates,
            // What this parser does not understand, the kernel's may. Of the real root it is not offered, nor where
            // something is revoked: it could be that.
            Err(error) => {
                let fault = invalid(&error);
                if file.source == Source::Root || !self.revoked.is_empty() {
                    return Err(fault);
                }
                let taken = self.keyring.add_unparsed(bytes);
                let refusal = (!taken).then_some(&fault);
                self.keyring.record(file, None, refusal);
                return match taken {
                    true => Ok(Taken::Unparsed),
                    false => Err(fault),
                };
            }
        };
        let before = self.taken.len();
        let mut first = None;
        for certificate in parsed {
            let result = match self.objection(file, &certificate) {
                Some(fault) => Err(fault),
                None => self.keyring.add(path, &certificate),
            };
            let refusal = result.as_ref().err();
            self.keyring.record(file, Some(&certificate), refusal);
            match result {
                Ok(()) => {
                    self.remark(path, &certificate);
                    self.taken.push(certificate);
                }
                // A revoked one in the initramfs refuses the boot, whatever else is in the file.
                Err(fault)
                    if fault.code() == Code::CertificateRevoked
                        && file.source == Source::Initramfs =>
                {
                    return Err(fault);
                }
                Err(fault) => {
                    first.get_or_insert(fault);
                }
            }
        }
        match first {
            Some(fault) if self.taken.len() == before => Err(fault),
            Some(fault) => {
                self.skip(file.source, &fault);
                Ok(Taken::Parsed)
            }
            None => Ok(Taken::Parsed),
        }
    }

    /// Why a certificate is not offered to the kernel, which looks neither at dates nor at who was revoked. A date counts for
    /// one of the real root: whoever writes the disk may have kept it since.
    fn objection(&self, file: &CertificateFile, certificate: &Certificate) -> Option<Fault> {
        if let Some(fault) = self.revoked.refusal(&file.path, certificate) {
            return Some(fault);
        }
        if file.source == Source::Initramfs || self.now <= certificate.not_after() {
            return None;
        }
        let detail = format!("{}: {}", file.path, certificate.subject());
        let fault =
            Fault::new(Code::CertificateExpired, detail).because(Cause::ROOT_CERTIFICATE_EXPIRED);
        Some(fault)
    }

    /// Warns of what a certificate that was taken is not good for.
    fn remark(&mut self, path: &str, certificate: &Certificate) {
        let detail = || format!("{path}: {}", certificate.subject());
        let useless = certificate.useless(path);
        if let Some(fault) = useless.filter(|_| self.keyring.is_for_files()) {
            self.keyring.warn(fault);
        }
        if certificate.is_sample() {
            self.keyring.warn(Fault::new(Code::SampleKey, detail()));
        }
        if self.now > certificate.not_after() || self.now < certificate.not_before() {
            self.keyring
                .warn(Fault::new(Code::CertificateExpired, detail()));
        }
    }
}

/// What was taken of a file.
enum Taken {
    /// Certificates, which are among those taken.
    Parsed,
    /// Something that only the keyring understands.
    Unparsed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const P256: &[u8] = include_bytes!("../testdata/p256.der");
    const EXPIRED: &[u8] = include_bytes!("../testdata/expired.der");
    const NO_SKID: &[u8] = include_bytes!("../testdata/no-skid.der");
    const SAMPLE: &[u8] = include_bytes!("../testdata/sample.der");

    /// A keyring whose answers are given: it takes each certificate or does not.
    #[derive(Debug, Default)]
    struct Fake {
        takes: Vec<bool>,
        asked: usize,
        warnings: Vec<Code>,
        records: Vec<bool>,
        for_root_hashes: bool,
    }

    impl Fake {
        fn next(&mut self) -> bool {
            let takes = self.takes.get(self.asked).copied().unwrap_or(true);
            self.asked += 1;
            takes
        }
    }

    impl Keyring for Fake {
        fn add(&mut self, path: &str, _: &Certificate) -> Result<(), Fault> {
            match self.next() {
                true => Ok(()),
                false => Err(Fault::new(Code::CertificateRefused, path)),
            }
        }

        fn add_unparsed(&mut self, _: &[u8]) -> bool {
            self.next()
        }

        fn record(
            &mut self,
            _: &CertificateFile,
            _: Option<&Certificate>,
            refusal: Option<&Fault>,
        ) {
            self.records.push(refusal.is_none());
        }

        fn warn(&mut self, warning: Fault) {
            self.warnings.push(warning.code());
        }

        fn is_for_files(&self) -> bool {
            !self.for_root_hashes
        }
    }

    fn file(source: Source, content: &[u8]) -> CertificateFile {
        CertificateFile {
            path: "x509_ima.der".to_owned(),
            source,
            content: Ok(content.to_vec()),
        }
    }

    /// A time at which all but the expired one of the test data are valid.
    fn now() -> u64 {
        Certificate::parse(P256).unwrap().not_before() + 1
    }

    #[test]
    fn expired_certificates_are_offered_from_the_initramfs_alone() {
        let nothing = Revocations::default();
        for (source, taken, warning) in [
            (Source::Initramfs, 1, Code::CertificateExpired),
            (Source::Root, 0, Code::RootCertificate),
        ] {
            let mut offering = Offering::new(Fake::default(), &nothing, now());
            offering.optional([file(source, EXPIRED)]);
            assert_eq!(offering.keyring.warnings, [warning], "{source:?}");
            assert_eq!(offering.usable().len(), taken, "{source:?}");
        }
    }

    /// The kernel finds it by issuer and serial number in PKCS #7, and by its subject key identifier alone for a file.
    #[test]
    fn certificate_without_an_identifier_is_useless_for_files_alone() {
        let nothing = Revocations::default();
        for (for_root_hashes, warnings) in [(false, &[Code::CertificateUseless][..]), (true, &[])] {
            let keyring = Fake {
                for_root_hashes,
                ..Fake::default()
            };
            let mut offering = Offering::new(keyring, &nothing, now());
            let result = offering.required([file(Source::Initramfs, NO_SKID)]);
            assert!(result.is_ok());
            assert_eq!(offering.keyring.warnings, warnings);
        }
    }

    #[test]
    fn revoked_certificate_of_the_initramfs_refuses_whatever_else_is_taken() {
        let mut revoked = Revocations::default();
        assert!(revoked.set_keys(&Certificate::parse(P256).unwrap().key_id().to_string()));
        let mut offering = Offering::new(Fake::default(), &revoked, now());
        let files = [SAMPLE, P256].map(|content| file(Source::Initramfs, content));
        let fault = offering.required(files).unwrap_err();
        assert_eq!(fault.code(), Code::CertificateRevoked);
        let mut offering = Offering::new(Fake::default(), &revoked, now());
        offering.optional([file(Source::Root, P256)]);
        assert_eq!(offering.keyring.warnings, [Code::RootCertificateRevoked]);
        assert_eq!(offering.keyring.asked, 0);
    }

    #[test]
    fn what_is_not_parsed_is_left_to_the_kernel_unless_something_is_revoked_or_it_is_of_the_root() {
        let nothing = Revocations::default();
        let mut some = Revocations::default();
        assert!(some.set_keys("01020304"));
        for (source, revoked, asked) in [
            (Source::Initramfs, &nothing, 1),
            (Source::Initramfs, &some, 0),
            (Source::Root, &nothing, 0),
        ] {
            let mut offering = Offering::new(Fake::default(), revoked, now());
            let result = offering.required([file(source, b"no certificate")]);
            assert_eq!(offering.keyring.asked, asked, "{source:?}");
            assert_eq!(result.is_ok(), asked == 1, "{source:?}");
        }
    }

    proptest! {
        #[test]
        fn one_of_those_required_is_taken_or_the_first_refusal_returned(
            takes in proptest::collection::vec(any::<bool>(), 0..6)
        ) {
            let nothing = Revocations::default();
            let keyring = Fake { takes: takes.clone(), ..Fake::default() };
            let mut offering = Offering::new(keyring, &nothing, now());
            let result = offering.required(takes.iter().map(|_| file(Source::Initramfs, P256)));
            let taken = takes.iter().filter(|takes| **takes).count();
            prop_assert_eq!(result.is_err(), taken == 0 && !takes.is_empty());
            prop_assert_eq!(&offering.keyring.records, &takes);
            let skipped = offering.keyring.warnings.iter().filter(|code| **code == Code::CertificateSkipped).count();
            prop_assert_eq!(skipped, if taken == 0 { 0 } else { takes.len() - taken });
            prop_assert_eq!(offering.usable().len(), taken);
        }
    }
}
