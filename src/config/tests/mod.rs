mod environment;
mod examples;
mod problems;

use std::ffi::OsString;
use std::path::Path;

use super::{Config, Loaded, Problems, parse};

/// A small configuration without a problem.
const GOOD: &str = r#"
[bases.one]
path = "one.gguf"
[bases.two]
path = "/models/two"
[workers.local]
driver = "embedded"
bases = ["one", "two"]
[[tenants]]
id = "acme"
keys = [{ demo = "sk-demo-acme" }]
adapters = [{ name = "pirate", base = "one", path = "adapters/pirate" }]
models = { assistant = { base = "one", adapter = "pirate" }, "one" = { base = "one" } }
"#;

fn read(text: &str) -> Result<Loaded, Problems> {
    parse(Path::new("conf/t.toml"), text, [])
}

fn good(text: &str) -> Config {
    read(text).expect("no problem").config
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

mod records {
    use super::*;
    use crate::types::BaseName;

    #[test]
    fn a_good_file_becomes_tenants_with_their_own_models() {
        let config = good(GOOD);
        let resolved = config.resolve(|entry| Ok(format!("digest of {}", entry.name))).expect("readable");
        assert_eq!(resolved.bases, [BaseName::new("one")]);

        let acme = resolved.keyring.authenticate(Some(b"Bearer sk-demo-acme")).expect("a known key");
        assert_eq!(acme.limits.concurrent_generations, 64);
        assert_eq!(acme.models["one"].adapter, None);
        let key = acme.models["assistant"].adapter.as_ref().expect("an adapter");
        assert_eq!((&*key.name, key.revision, &*key.digest), ("pirate", 1, "digest of pirate"));
        let artifact = resolved.catalogue.get(key).expect("listed");
        assert_eq!(artifact.folder, Path::new("conf/adapters/pirate"));
        assert_eq!(artifact.base.as_str(), "one");
    }

    #[test]
    fn every_artifact_that_cannot_be_used_is_reported_at_its_path() {
        let more = "[[tenants]]\nid = \"b\"\nkeys = [{ demo = \"sk-demo-b\" }]\n\
                    adapters = [{ name = \"json\", base = \"two\", path = \"x\" }]\n";
        let config = good(&format!("{GOOD}{more}"));
        let refused = config.resolve(|entry| Err(format!("no\n{}", entry.name))).expect_err("refused");
        assert_eq!(
            refused.to_string(),
            "conf/t.toml:12: tenants[0].adapters[0].path: no pirate\n\
             conf/t.toml:17: tenants[1].adapters[0].path: no json"
        );
    }

    #[test]
    fn paths_are_relative_to_the_files_folder() {
        let config = good(GOOD);
        assert_eq!(config.bases[0].path, Path::new("conf/one.gguf"));
        assert_eq!(config.bases[1].path, Path::new("/models/two"));
    }

    #[test]
    fn demonstration_keys_are_listed_and_warned_of_where_others_can_reach_them() {
        let loaded = read(GOOD).expect("no problem");
        let keys: Vec<_> = loaded.config.demo_keys().map(|(tenant, key)| (tenant.as_str(), key)).collect();
        assert_eq!(keys, [("acme", "sk-demo-acme")]);
        assert!(loaded.warnings.is_empty());

        let open = read(&format!("[server]\nlisten = \"0.0.0.0:80\"\n{GOOD}")).expect("no problem");
        let warnings: Vec<String> = open.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "conf/t.toml:2: server.listen: 0.0.0.0:80 can be reached from other machines, and the demonstration keys are public"
            ]
        );
    }
}
