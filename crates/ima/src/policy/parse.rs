//! Text to rules.

use crate::hash::HashAlgorithm;
use crate::measurement::Template;

use super::{
    Access, Action, AppraiseType, Comparison, Hook, IdCondition, Line, LsmField, MAX_POLICY,
    MAX_RULE, Mask, Policy, PolicyError, PolicyErrorKind as Kind, ProcessId, Rule,
};

/// The longest piece of a line that an error repeats, in characters.
const MAX_TOKEN_SHOWN: usize = 80;

impl Policy {
    /// Parses a policy file: one rule a line, `#` and blank lines skipped. A policy without rules is not an error here.
    ///
    /// # Errors
    ///
    /// The first error; [`Policy::errors`] gives all.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        let mut lines = Vec::new();
        for parsed in self::lines(text) {
            lines.push(parsed?);
        }
        Ok(Self { lines })
    }

    /// The rules that can be understood, the others skipped: for what a newer kernel shows of its policy.
    pub fn parse_known(text: &[u8]) -> Self {
        Self {
            lines: lines(text).filter_map(Result::ok).collect(),
        }
    }

    /// Whether the rules of this policy all stand in what the kernel shows of its own, in this order, other rules between them or
    /// not: it may begin with rules built into the kernel, and a newer kernel may show some that are not known here.
    pub fn is_within(&self, shown: &[u8]) -> bool {
        let mut shown = shown.split(|byte| *byte == b'\n');
        // Most rules are shown as they were written, and comparing takes much less time than parsing.
        let is_line = |candidate: &[u8], line: &Line| {
            candidate.trim_ascii_end() == line.text.as_bytes()
                || self::rule(candidate).is_some_and(|rule| rule == line.rule)
        };
        self.lines
            .iter()
            .all(|line| shown.any(|candidate| is_line(candidate, line)))
    }

    /// Every error of a policy file, one a line at most.
    pub fn errors(text: &[u8]) -> Vec<PolicyError> {
        lines(text).filter_map(Result::err).collect()
    }
}

/// The rules of a file, or the error of each line that has one.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = Result<Line, PolicyError>> {
    let too_large = (text.len() > MAX_POLICY).then(|| {
        Err(PolicyError {
            line: 1,
            token: String::new(),
            kind: Kind::FileTooLarge,
        })
    });
    let text = if too_large.is_some() { &[] } else { text };
    let parsed = text
        .split(|byte| *byte == b'\n')
        .zip(1_usize..)
        .filter_map(|(bytes, number)| line(bytes, number).transpose());
    too_large.into_iter().chain(parsed)
}

/// The rule of a line; nothing for one that has none or an error.
fn rule(bytes: &[u8]) -> Option<Rule> {
    line(bytes, 0).ok().flatten().map(|line| line.rule)
}

fn line(bytes: &[u8], number: usize) -> Result<Option<Line>, PolicyError> {
    let error = |token: &str, kind| PolicyError {
        line: number,
        token: token
            .chars()
            .take(MAX_TOKEN_SHOWN)
            .flat_map(char::escape_debug)
            .collect(),
        kind,
    };
    // Before comments are looked for: what follows a NUL in a comment would be read as a rule.
    if bytes.contains(&0) {
        return Err(error("", Kind::Nul));
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(bytes.len());
    let rule = bytes.get(start..).unwrap_or_default();
    match rule.first() {
        None | Some(b'#') => return Ok(None),
        Some(b'/') => return Err(error(&String::from_utf8_lossy(rule), Kind::Path)),
        Some(_) => {}
    }
    if rule.last() == Some(&b'\r') {
        return Err(error("", Kind::CarriageReturn));
    }
    if bytes.len() > MAX_RULE {
        return Err(error("", Kind::TooLong));
    }
    let text = std::str::from_utf8(rule).map_err(|_| error("", Kind::NotText))?;
    let text = text.trim_end_matches([' ', '\t']);
    // Most rules are ASCII: what is beyond is looked at as characters, which takes ten times as long.
    let unusual = |byte: u8| !matches!(byte, b'\t' | b' '..=b'~');
    if text.bytes().any(unusual) && text.chars().any(|c| c != '\t' && c.is_control()) {
        return Err(error("", Kind::NotText));
    }
    let rule = parse_rule(text).map_err(|(token, kind)| error(&token, kind))?;
    Ok(Some(Line {
        number,
        text: text.to_owned(),
        rule,
    }))
}

/// A rule under construction: the kernel sets the action at its token, not at the first.
struct Builder {
    rule: Rule,
    action: Option<Action>,
}

type TokenError = (String, Kind);

fn parse_rule(text: &str) -> Result<Rule, TokenError> {
    let mut builder = Builder {
        // Replaced by the rule's own action, which there must be.
        rule: Rule::new(Action::Measure),
        action: None,
    };
    // Of ASCII's whitespace there are only blanks and tabs in it.
    for token in text.split_ascii_whitespace() {
        builder
            .token(token)
            .map_err(|kind| (token.to_owned(), kind))?;
    }
    let action = builder.action.ok_or((String::new(), Kind::NoAction))?;
    let mut rule = builder.rule;
    rule.action = action;
    validate(&rule).map_err(|(token, kind)| (token.to_owned(), kind))?;
    rule.lsm.sort_by_key(|(field, _)| *field as u8);
    Ok(rule)
}

impl Builder {
    fn token(&mut self, token: &str) -> Result<(), Kind> {
        if token.starts_with('#') {
            return Err(Kind::CommentInRule);
        }
        let is_operator = |byte| matches!(byte, b'=' | b'<' | b'>');
        let at = token.bytes().position(is_operator);
        let Some((key, rest)) = at.and_then(|at| token.split_at_checked(at)) else {
            return self.word(token);
        };
        let (operator, value) = rest.split_at_checked(1).ok_or(Kind::UnknownKeyword)?;
        let comparison = by_name(&Comparison::ALL, operator).ok_or(Kind::UnknownKeyword)?;
        if self.id(key, comparison, value)? {
            return Ok(());
        }
        if comparison != Comparison::Equal {
            return Err(Kind::UnknownKeyword);
        }
        self.option(key, value)
    }

    /// A token without a value.
    fn word(&mut self, word: &str) -> Result<(), Kind> {
        if word == "permit_directio" {
            self.rule.permit_directio = true;
            return Ok(());
        }
        let action = by_name(&Action::ALL, word).ok_or(Kind::UnknownKeyword)?;
        match self.action.replace(action) {
            Some(_) => Err(Kind::SecondAction),
            None => Ok(()),
        }
    }

    /// `uid`, `gid`, `fowner`, `fgroup` and the effective ids; `false` if the key is none of them.
    fn id(&mut self, key: &str, comparison: Comparison, value: &str) -> Result<bool, Kind> {
        let condition = |value: &str| -> Result<IdCondition, Kind> {
            let id: u32 = decimal(value)?;
            // (uid_t)-1 is not an id (`uid_valid`).
            if id == u32::MAX {
                return Err(Kind::BadValue);
            }
            Ok(IdCondition { comparison, id })
        };
        let process = |effective| {
            condition(value).map(|condition| ProcessId {
                effective,
                condition,
            })
        };
        match key {
            "uid" | "euid" => once(&mut self.rule.uid, || process(key == "euid"))?,
            "gid" | "egid" => once(&mut self.rule.gid, || process(key == "egid"))?,
            "fowner" => once(&mut self.rule.fowner, || condition(value))?,
            "fgroup" => once(&mut self.rule.fgroup, || condition(value))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn option(&mut self, key: &str, value: &str) -> Result<(), Kind> {
        let rule = &mut self.rule;
        match key {
            "func" => once(&mut rule.hook, || {
                let name = nonempty(value)?;
                match name {
                    "PATH_CHECK" => Ok(Hook::FileCheck),
                    "FILE_MMAP" => Ok(Hook::MmapCheck),
                    _ => by_name(&Hook::ALL, name).ok_or(Kind::BadValue),
                }
            }),
            "mask" => once(&mut rule.mask, || {
                let name = nonempty(value)?;
                let plain = name.strip_prefix('^');
                let access = by_name(&Access::ALL, plain.unwrap_or(name)).ok_or(Kind::BadValue)?;
                Ok(Mask {
                    among_others: plain.is_some(),
                    access,
                })
            }),
            "fs_subtype" => once(&mut rule.fs_subtype, || nonempty(value).map(str::to_owned)),
            // What is 0 counts as not given, here and for fsuuid.
            "fsmagic" => {
                let magic = hexadecimal(nonempty(value)?)?;
                if rule.fsmagic.is_some_and(|given| given != 0) {
                    return Err(Kind::Duplicate);
                }
                rule.fsmagic = Some(magic);
                Ok(())
            }
            // The kernel takes a second one in place of the first.
            "fsname" => {
                rule.fsname = Some(nonempty(value)?.to_owned());
                Ok(())
            }
            "fsuuid" => {
                let uuid = uuid(nonempty(value)?)?;
                if rule.fsuuid.is_some_and(|given| given != [0; 16]) {
                    return Err(Kind::Duplicate);
                }
                rule.fsuuid = Some(uuid);
                Ok(())
            }
            "pcr" => {
                // By `kstrtoint`, which takes a minus sign where `kstrtoul` does not.
                let pcr: i32 = decimal(value)?;
                let pcr = u8::try_from(pcr).ok().filter(|pcr| *pcr <= 63);
                rule.pcr = Some(pcr.ok_or(Kind::BadValue)?);
                Ok(())
            }
            "template" => {
                let name = nonempty(value)?;
                if self.action != Some(Action::Measure) {
                    return Err(Kind::TemplateBeforeMeasure);
                }
                once(&mut rule.template, || {
                    // Either the name or the format (`lookup_template_desc` in ima_template.c).
                    Template::BUILT_IN
                        .iter()
                        .find(|(template, format)| *template == name || *format == name)
                        .map(|(template, _)| (*template).to_owned())
                        .ok_or(Kind::BadValue)
                })
            }
            "keyrings" => list(&mut rule.keyrings, value),
            "label" => list(&mut rule.label, value),
            "digest_type" => {
                if nonempty(value)? != "verity" {
                    return Err(Kind::BadValue);
                }
                rule.verity = true;
                Ok(())
            }
            "appraise_type" => {
                let kind = by_name(&AppraiseType::ALL, nonempty(value)?).ok_or(Kind::BadValue)?;
                if rule.verity && kind != AppraiseType::Sigv3 {
                    return Err(Kind::VerityNeedsSigv3);
                }
                // The kernel keeps a flag for each: what one of them asked for, a second does not take back.
                use AppraiseType::{Imasig, ImasigOrModsig, Sigv3};
                match (rule.appraise_type, kind) {
                    (Some(Sigv3), ImasigOrModsig) | (Some(ImasigOrModsig), Sigv3) => {
                        return Err(Kind::Duplicate);
                    }
                    (Some(_), Imasig) => {}
                    _ => rule.appraise_type = Some(kind),
                }
                Ok(())
            }
            // Its only value was made the default; any is accepted.
            "appraise_flag" => nonempty(value).map(drop),
            "appraise_algos" => {
                if !rule.appraise_algos.is_empty() {
                    return Err(Kind::Duplicate);
                }
                let mut algorithms: Vec<String> = Vec::new();
                for name in nonempty(value)?.split(',') {
                    if HashAlgorithm::from_name(name).is_none() {
                        return Err(Kind::BadValue);
                    }
                    algorithms.push(name.to_owned());
                }
                algorithms.sort_unstable();
                algorithms.dedup();
                rule.appraise_algos = algorithms;
                Ok(())
            }
            _ => {
                let field = by_name(&LsmField::ALL, key).ok_or(Kind::UnknownKeyword)?;
                let label = nonempty(value)?;
                if rule.lsm.iter().any(|(present, _)| *present == field) {
                    return Err(Kind::Duplicate);
                }
                rule.lsm.push((field, label.to_owned()));
                Ok(())
            }
        }
    }
}

/// `ima_validate_rule`: what goes with what.
fn validate(rule: &Rule) -> Result<(), (&'static str, Kind)> {
    if rule.pcr.is_some() && rule.action != Action::Measure {
        return Err(("pcr", Kind::PcrWithoutMeasure));
    }
    if rule.action != Action::Appraise
        && (rule.appraise_type.is_some() || !rule.appraise_algos.is_empty())
    {
        return Err(("", Kind::AppraiseOption));
    }
    let measures = matches!(rule.action, Action::Measure | Action::DontMeasure);
    let keyrings = ("keyrings", !rule.keyrings.is_empty());
    let label = ("label", !rule.label.is_empty());
    let modsig = (
        "appraise_type",
        rule.appraise_type == Some(AppraiseType::ImasigOrModsig),
    );
    let mask = ("mask", rule.mask.is_some());
    let fsmagic = ("fsmagic", rule.fsmagic.is_some());
    let fsname = ("fsname", rule.fsname.is_some());
    let subtype = ("fs_subtype", rule.fs_subtype.is_some());
    let fsuuid = ("fsuuid", rule.fsuuid.is_some());
    let fowner = ("fowner", rule.fowner.is_some());
    let fgroup = ("fgroup", rule.fgroup.is_some());
    let effective = (
        "euid",
        rule.uid.is_some_and(|uid| uid.effective) || rule.gid.is_some_and(|gid| gid.effective),
    );
    let ids = ("uid", rule.uid.is_some() || rule.gid.is_some());
    let lsm = ("obj_type", !rule.lsm.is_empty());
    let verity = ("digest_type", rule.verity);
    let directio = ("permit_directio", rule.permit_directio);
    let pcr = ("pcr", rule.pcr.is_some());
    let none = |present: &[(&'static str, bool)]| {
        present
            .iter()
            .find(|(_, present)| *present)
            .map_or(Ok(()), |(name, _)| Err((*name, Kind::NotForHook)))
    };
    match rule.hook {
        None
        | Some(
            Hook::FileCheck
            | Hook::MmapCheck
            | Hook::MmapCheckReqprot
            | Hook::BprmCheck
            | Hook::CredsCheck
            | Hook::FirmwareCheck
            | Hook::PolicyCheck,
        ) => none(&[keyrings, label, modsig])?,
        Some(Hook::ModuleCheck | Hook::KexecKernelCheck | Hook::KexecInitramfsCheck) => {
            none(&[keyrings, label, verity])?;
        }
        Some(Hook::KexecCmdline) => {
            if !measures {
                return Err(("", Kind::ActionNotForHook));
            }
            none(&[keyrings, label, mask, verity, directio])?;
        }
        Some(hook @ (Hook::KeyCheck | Hook::CriticalData)) => {
            if !measures {
                return Err(("", Kind::ActionNotForHook));
            }
            let other = if hook == Hook::KeyCheck {
                label
            } else {
                keyrings
            };
            none(&[
                other, mask, fsmagic, fsname, subtype, fsuuid, fowner, fgroup, effective, lsm,
                verity, directio,
            ])?;
        }
        Some(Hook::SetxattrCheck) => {
            if rule.action != Action::Appraise {
                return Err(("", Kind::ActionNotForHook));
            }
            let typed = ("appraise_type", rule.appraise_type.is_some());
            if rule.appraise_algos.is_empty() {
                return Err(("", Kind::SetxattrNeedsAlgos));
            }
            none(&[
                keyrings, label, mask, fsmagic, fsname, subtype, fsuuid, fowner, fgroup, ids,
                verity, directio, pcr, typed,
            ])?;
        }
    }
    if rule.action == Action::Appraise
        && rule.verity
        && rule.appraise_type != Some(AppraiseType::Sigv3)
    {
        return Err(("digest_type", Kind::VerityNeedsSigv3));
    }
    Ok(())
}

fn by_name<T: Copy>(table: &[(T, &'static str)], name: &str) -> Option<T> {
    table
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(item, _)| *item)
}

fn once<T>(place: &mut Option<T>, value: impl FnOnce() -> Result<T, Kind>) -> Result<(), Kind> {
    if place.is_some() {
        return Err(Kind::Duplicate);
    }
    *place = Some(value()?);
    Ok(())
}

fn nonempty(value: &str) -> Result<&str, Kind> {
    if value.is_empty() {
        Err(Kind::EmptyValue)
    } else {
        Ok(value)
    }
}

/// `kstrtoul` with base 10: digits, a `+` before them if you like.
fn decimal<T: std::str::FromStr>(value: &str) -> Result<T, Kind> {
    nonempty(value)?.parse().map_err(|_| Kind::BadValue)
}

/// `kstrtoul` with base 16: the prefix is optional.
fn hexadecimal(value: &str) -> Result<u64, Kind> {
    let value = value.strip_prefix('+').unwrap_or(value);
    let digits = value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"))
        .unwrap_or(value);
    if digits.starts_with('+') {
        return Err(Kind::BadValue);
    }
    u64::from_str_radix(digits, 16).map_err(|_| Kind::BadValue)
}

/// `uuid_parse` (lib/uuid.c) looks at the first 36 characters only.
fn uuid(value: &str) -> Result<[u8; 16], Kind> {
    let text = value.get(..36).ok_or(Kind::BadValue)?;
    crate::filesystem::Uuid::parse(text)
        .map(|uuid| uuid.0)
        .ok_or(Kind::BadValue)
}

/// `ima_alloc_rule_opt_list`: items between `|`, none empty.
fn list(place: &mut Vec<String>, value: &str) -> Result<(), Kind> {
    if !place.is_empty() {
        return Err(Kind::Duplicate);
    }
    let items: Vec<String> = nonempty(value)?.split('|').map(str::to_owned).collect();
    if items.iter().any(String::is_empty) {
        return Err(Kind::BadValue);
    }
    *place = items;
    Ok(())
}
