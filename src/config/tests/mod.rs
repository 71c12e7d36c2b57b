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

mod boot {
    use super::*;

    #[test]
    fn what_only_a_restart_applies_is_told_by_key_and_all_else_is_not() {
        let before = good(GOOD);
        let after = |text: &str| before.waiting_for_restart(&good(text));
        assert_eq!(after(GOOD), Vec::<String>::new());
        for (change, keys) in [
            ("[server]\nhold = \"1s\"\nlisten = \"127.0.0.1:8080\"\n", &["server.hold", "server.listen"][..]),
            ("[server]\nhold = \"10s\"\n", &[]),
            (
                "[ops.admin_key]\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n",
                &["ops.admin_key.sha256"],
            ),
            ("[queue]\nmax_wait = \"1s\"\n[gateway]\nattempts = 3\n", &["gateway.attempts", "queue.max_wait"]),
            ("[log]\nfilter = \"debug\"\n", &[]),
            ("[log]\nformat = \"json\"\nfilter = \"debug\"\n", &["log.format"]),
            ("[redis]\nurl = \"env:REDIS\"\n", &["redis.url"]),
            ("[guard.stage2]\nthreads = 2\n[guard.lists.house]\nblock = [\"bonus\"]\n", &["guard.stage2.threads"]),
            ("[reload]\nwatch = false\n", &["reload.watch"]),
        ] {
            assert_eq!(after(&format!("{change}{GOOD}")), keys, "{change}");
        }
        // The spool lies in the catalogue's folder.
        let moved = after(&format!("[catalogue]\ndata_dir = \"elsewhere\"\n{GOOD}"));
        assert_eq!(moved, ["catalogue.data_dir", "ratings"]);
        let (path, none) = (Path::new("conf/t.toml"), variables(&[("TENANTRY_SERVER__HOLD", "2s")]));
        let overridden = parse(path, GOOD, none).expect("no problem").config;
        assert_eq!(before.waiting_for_restart(&overridden), ["server.hold"]);
    }
}
