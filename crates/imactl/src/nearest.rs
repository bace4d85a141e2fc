//! The valid word that is nearest to one that is not.

use ima::config::{ConfigError, ConfigErrorKind, KEYS};
use ima::policy::{Hook, KEYWORDS, PolicyError, PolicyErrorKind};

/// Which of the known words may be meant: the nearest, if at most one letter in three is missing, added, exchanged or another.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let most = word.chars().count().div_ceil(3).min(3);
    known
        .into_iter()
        .map(|candidate| {
            let distance = strsim::osa_distance(&word, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The keyword or hook that a wrong word of a policy may be meant for.
#[must_use]
pub fn in_policy(error: &PolicyError) -> Option<&'static str> {
    let (word, value) = match error.token.find(['=', '<', '>']) {
        Some(at) => error.token.split_at(at),
        None => (error.token.as_str(), ""),
    };
    match error.kind {
        PolicyErrorKind::UnknownKeyword => nearest(word, KEYWORDS).filter(|near| *near != word),
        PolicyErrorKind::BadValue if word == "func" => {
            let hooks = Hook::ALL.iter().map(|(_, name)| *name);
            nearest(value.trim_start_matches('='), hooks)
        }
        _ => None,
    }
}

/// The key that a wrong one of `ima-init.conf` may be meant for.
#[must_use]
pub fn in_configuration(error: &ConfigError) -> Option<&'static str> {
    match error.kind {
        ConfigErrorKind::UnknownKey => nearest(&error.token, KEYS),
        _ => None,
    }
}

/// The error with what may be meant.
#[must_use]
pub fn with(error: &impl ToString, near: Option<&str>) -> String {
    let text = error.to_string();
    match near {
        Some(near) => format!("{text} (did you mean {near}?)"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ima::config::Config;
    use ima::policy::Policy;

    #[test]
    fn a_mistyped_word_of_a_policy_has_a_suggestion() {
        for (rule, wanted) in [
            ("apraise func=BPRM_CHECK", Some("appraise")),
            ("APPRAISE func=BPRM_CHECK", Some("appraise")),
            ("appraise fnuc=BPRM_CHECK", Some("func")),
            ("appraise func=BRPM_CHECK", Some("BPRM_CHECK")),
            ("appraise func=bprm_check", Some("BPRM_CHECK")),
            ("appraise fsmgic=0x1", Some("fsmagic")),
            ("appraise apraise_type=imasig", Some("appraise_type")),
            ("appraise something=else", None),
            ("appraise func=EXECUTION_OF_FILES", None),
            ("appraise fsmagic=x", None),
            ("appraise func>BPRM_CHECK", None),
        ] {
            let errors = Policy::errors(format!("{rule}\n").as_bytes());
            assert_eq!(errors.first().and_then(in_policy), wanted, "{rule}");
        }
    }

    #[test]
    fn a_mistyped_key_of_the_configuration_has_a_suggestion() {
        for (line, wanted) in [
            ("enforced=required", Some("enforce")),
            ("rootflag=noatime", Some("rootflags")),
            ("on-failure=halt", Some("on_failure")),
            ("colour=green", None),
            ("enforce=maybe", None),
        ] {
            let error = Config::parse(line.as_bytes()).unwrap_err();
            assert_eq!(in_configuration(&error), wanted, "{line}");
        }
    }
}
