mod discovery;
mod environment;
mod examples;
mod guard;
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

    #[test]
    fn paths_are_relative_to_the_files_folder() {
        let config = good(GOOD);
        assert_eq!(config.bases[0].path.as_deref(), Some(Path::new("conf/one.gguf")));
        assert_eq!(config.bases[1].path.as_deref(), Some(Path::new("/models/two")));
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
