//! Any bytes as a kernel command line, and each value in it as the name of a root: whatever it says, the configuration and
//! the init stay what they are.
#![no_main]

use ima::cmdline::{RootName, parameters};
use ima::config::{Config, Parameter};
use ima::forward::{ALWAYS, filter};
use ima::settings::Settings;

libfuzzer_sys::fuzz_target!(|line: &[u8]| {
    for parameter in parameters(line) {
        let _ = parameter.is("root");
        if let Some(name) = parameter.value.as_deref().and_then(RootName::parse) {
            assert_eq!(RootName::parse(&name.to_string()), Some(name));
        }
    }
    if let Ok(settings) = Settings::merge(Config::default(), line, Vec::new(), &mut |_| {}) {
        assert_eq!(settings.config, Config::default());
        assert_eq!(settings.init, Config::default().init);
        assert!(settings.arguments.is_empty());
        let forwarded = settings.forwarded.line;
        assert_eq!(filter(&forwarded, &settings.config).line, forwarded);
        for word in forwarded.split_whitespace() {
            let name = word.split('=').next().unwrap_or_default();
            let known = Parameter::ALL.iter().map(|known| known.name());
            assert!(ALWAYS.into_iter().chain(known).any(|known| known == name));
        }
    }
    if let Some(name) = std::str::from_utf8(line).ok().and_then(RootName::parse) {
        assert_eq!(RootName::parse(&name.to_string()), Some(name));
    }
});
