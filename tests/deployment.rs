//! What is shipped for containers, Kubernetes, Prometheus and Grafana names only what there is, and its scripts do what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use troop::settings::{Settings, Sources, TABLE};

use crate::cluster::{borrowed, settings};
use crate::support::{Node, free_ports, get, program, wait_for};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below a folder.
fn below(folder: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the project").flatten() {
            if entry.path().is_dir() { &mut folders } else { &mut found }.push(entry.path());
        }
    }
    found
}

/// The documents of a YAML file.
fn yaml(path: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
    let mut python = Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    python.stdin.take().expect("its input").write_all(text(path).as_bytes()).expect("it reads");
    let output = python.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{path} is no YAML");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The words of a text that begin with one of these and go on with letters, digits and `_`.
fn words(text: &str, beginnings: &[&str]) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| beginnings.iter().any(|b| word.len() > b.len() && word.starts_with(b))).map(str::to_owned).collect()
}

const COMPOSE: &str = "docker-compose.cluster.yml";
const STATEFUL_SET: &str = "deploy/kubernetes/statefulset.yaml";

#[test]
fn every_setting_that_is_named_exists() {
    let mut named = 0;
    let single = ["Dockerfile", COMPOSE].map(|name| root().join(name));
    for path in below("deploy").into_iter().chain(single) {
        let text = std::fs::read_to_string(&path).expect("a text");
        for word in words(&text, &["TROOP_", "KONG_"]) {
            let name = word.trim_start_matches("TROOP_").trim_start_matches("KONG_").to_lowercase();
            assert!(TABLE.iter().any(|setting| setting.name == name), "{}: there is no setting {name}", path.display());
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
}

/// What a container of the cluster is given in its environment.
fn environments() -> Vec<(String, BTreeMap<String, String>)> {
    let mut all = Vec::new();
    for (name, service) in yaml(COMPOSE)[0]["services"].as_object().expect("services") {
        if let Some(environment) = service["environment"].as_object().filter(|_| service["image"] == "troop") {
            all.push((name.clone(), environment.iter().map(|(k, v)| (k.clone(), v.as_str().expect("a text").to_owned())).collect()));
        }
    }
    let container = &yaml(STATEFUL_SET)[0]["spec"]["template"]["spec"]["containers"][0];
    // What Kubernetes puts in the place of variables.
    let fill = |value: &str| value.replace("$(POD_IP)", "10.1.2.3").replace("$(POD_NAME)", "troop-0");
    let of = |variable: &Value| Some((variable["name"].as_str()?.to_owned(), fill(variable["value"].as_str()?)));
    all.push(("statefulset".to_owned(), container["env"].as_array().expect("variables").iter().filter_map(of).collect()));
    all
}

#[test]
fn containers_are_given_settings_that_can_be_used() {
    let image: BTreeMap<String, String> = text("Dockerfile")
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("ENV ").trim_end_matches(" \\").split_once('='))
        .filter(|(name, _)| name.starts_with("TROOP_"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(image.contains_key("TROOP_PREFIX"));
    let all = environments();
    assert_eq!(all.len(), 4);
    let there = tempfile::NamedTempFile::new().expect("a file");
    for (name, mut own) in all {
        for variable in ["TROOP_CLUSTER_CERT", "TROOP_CLUSTER_CERT_KEY", "TROOP_CLUSTER_CA_CERT"] {
            let file = own.insert(variable.to_owned(), there.path().to_string_lossy().into_owned()).expect("a certificate");
            let joined = file.starts_with("/var/lib/troop/cluster/");
            assert!(joined, "{name} looks for {file}, and deploy/join.sh puts it elsewhere");
        }
        let environment = image.clone().into_iter().chain(own).collect();
        let settings = Settings::load(&Sources { environment, ..Sources::default() }).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(settings.without_effect(), [], "{name}");
        assert!(settings.cluster && !settings.cluster_seeds.is_empty() && settings.cluster_advertise.is_some(), "{name}");
        assert_eq!(settings.status_listen[0].address.to_string(), "0.0.0.0:8100", "{name}");
        let admin: Vec<_> = settings.admin_listen.iter().map(|listen| listen.address).collect();
        assert!(admin.iter().all(|address| !address.ip().is_unspecified()), "{name} shows its Admin API to everybody: {admin:?}");
    }
}

#[test]
fn ports_are_those_of_the_settings() {
    let defaults = Settings::load(&Sources::default()).expect("good defaults");
    let mut ports: Vec<u16> = defaults.proxy_listen.iter().map(|listen| listen.address.port()).collect();
    ports.push(defaults.cluster_listen.port());
    ports.push(8100);
    let exposed: Vec<u16> = text("Dockerfile")
        .lines()
        .find_map(|line| line.strip_prefix("EXPOSE "))
        .map(|ports| ports.split(' ').map(|port| port.parse().expect("a port")).collect())
        .expect("ports");
    let admin = defaults.admin_listen[0].address.port();
    assert!(ports.iter().chain([&admin]).all(|port| exposed.contains(port)), "{exposed:?}");

    let pod = yaml(STATEFUL_SET)[0]["spec"]["template"]["spec"].clone();
    let container = &pod["containers"][0];
    let of_container: BTreeMap<&str, u64> = container["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .map(|port| (port["name"].as_str().expect("a name"), port["containerPort"].as_u64().expect("a port")))
        .collect();
    assert_eq!(of_container.values().map(|port| *port as u16).collect::<BTreeSet<_>>(), ports.iter().copied().collect());
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "status");
    }
    let mut named: Vec<Value> = Vec::new();
    for service in yaml("deploy/kubernetes/services.yaml") {
        named.extend(service["spec"]["ports"].as_array().expect("ports").iter().map(|port| port["targetPort"].clone()));
    }
    for rule in yaml("deploy/kubernetes/network-policy.yaml")[0]["spec"]["ingress"].as_array().expect("rules") {
        named.extend(rule["ports"].as_array().expect("ports").iter().map(|port| port["port"].clone()));
    }
    for name in &named {
        assert!(name.as_str().is_some_and(|name| of_container.contains_key(name)), "{name} is no port of the container");
    }
    // A pod has the time that a node takes to stop.
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
    assert!(grace >= defaults.nginx_main_worker_shutdown_timeout.0.as_secs() + 10 + 5);

    // Published ports lead to those, and the Admin API's only from the machine itself.
    for (name, service) in yaml(COMPOSE)[0]["services"].as_object().expect("services").iter().filter(|(name, _)| name.starts_with("troop-"))
    {
        for port in service["ports"].as_array().expect("ports") {
            let parts: Vec<&str> = port.as_str().expect("a text").split(':').collect();
            let inside: u16 = parts.last().and_then(|port| port.parse().ok()).expect("a port");
            assert!(inside == admin && parts[0] == "127.0.0.1" || ports.contains(&inside), "{name}: {port}");
        }
    }
}

#[test]
fn every_metric_that_is_named_exists() {
    let source = text("src/node/metrics.rs");
    let cluster = words(&source, &["troop_cluster_"]);
    let mut known: BTreeSet<String> = words(&text("tests/golden/metrics.txt"), &["kong_", "troop_"]);
    known.extend(words(&text("docs/metrics.md"), &["kong_", "troop_"]));
    known.extend(cluster.iter().cloned());
    let dashboards = below("config/grafana");
    assert!(!dashboards.is_empty());
    for path in dashboards.into_iter().chain([root().join("config/alerts.yml")]) {
        let text = std::fs::read_to_string(&path).expect("a text");
        for metric in words(&text, &["kong_", "troop_"]) {
            assert!(known.contains(&metric), "{}: there is no metric {metric}", path.display());
        }
        if path.extension().is_some_and(|ending| ending == "json") {
            let dashboard: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 10));
        }
    }
    // And the page about the cluster has them all.
    let page = text("docs/cluster.md");
    for metric in cluster {
        let short = format!("`{}", metric.trim_start_matches("troop_cluster"));
        assert!(page.contains(&short) || page.contains(&format!("`{metric}")), "docs/cluster.md does not name {metric}");
    }
}

#[test]
fn alerts_and_manifests_are_complete() {
    let groups = yaml("config/alerts.yml")[0]["groups"].clone();
    let mut names = BTreeSet::new();
    for rule in groups.as_array().expect("groups").iter().flat_map(|group| group["rules"].as_array().expect("rules")) {
        let name = rule["alert"].as_str().expect("a name");
        assert!(names.insert(name.to_owned()), "{name} stands twice");
        let texts = [&rule["expr"], &rule["labels"]["severity"], &rule["annotations"]["summary"], &rule["annotations"]["description"]];
        assert!(texts.iter().all(|text| text.as_str().is_some_and(|text| !text.is_empty())), "{name}");
    }
    assert!(names.len() > 20);
    for folder in ["deploy/kubernetes", "deploy/kubernetes/monitoring"] {
        let mut listed: BTreeSet<String> = BTreeSet::from(["kustomization.yaml".to_owned()]);
        let kustomization = yaml(&format!("{folder}/kustomization.yaml"));
        listed.extend(kustomization[0]["resources"].as_array().expect("a list").iter().filter_map(Value::as_str).map(str::to_owned));
        for entry in std::fs::read_dir(root().join(folder)).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(!name.ends_with(".yaml") || listed.remove(&name), "{folder}/{name} is not in the kustomization");
        }
        assert!(listed.is_empty(), "{folder} has no {listed:?}");
    }
    for path in below("deploy").into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml")) {
        let path = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        assert!(yaml(&path).iter().all(Value::is_object), "{path}");
    }
    // What is mounted into a container is there.
    for (name, service) in yaml(COMPOSE)[0]["services"].as_object().expect("services") {
        for volume in service["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let source = volume.split(':').next().unwrap_or_default();
            assert!(!source.starts_with('.') || root().join(source).exists(), "{name}: {source} is not there");
        }
    }
}

/// `UPDATE_GOLDEN=1` writes them anew from `config/alerts.yml`.
#[test]
fn alerts_on_kubernetes_are_the_same() {
    let path = "deploy/kubernetes/monitoring/alerts.yaml";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let alerts = text("config/alerts.yml");
        let (head, groups) = alerts.split_at(alerts.find("groups:").expect("groups"));
        let groups: Vec<String> = groups.lines().map(|line| format!("  {line}").trim_end().to_owned()).collect();
        let rule = "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: troop\nspec:\n";
        let made =
            format!("# Of config/alerts.yml: change it there, and UPDATE_GOLDEN=1 writes this one.\n{head}{rule}{}\n", groups.join("\n"));
        std::fs::write(root().join(path), made).expect("the project can be written");
    }
    let rule = &yaml(path)[0];
    assert_eq!(rule["kind"], "PrometheusRule");
    assert_eq!(rule["spec"]["groups"], yaml("config/alerts.yml")[0]["groups"], "UPDATE_GOLDEN=1 writes them anew");
}

/// What the program is built from is not kept from the image.
#[test]
fn the_image_is_built_from_what_is_needed() {
    let ignored = text(".dockerignore");
    let ignored: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('/')).collect();
    let mut needed =
        vec!["Cargo.toml".into(), "Cargo.lock".into(), "src".into(), "cluster/Cargo.toml".into(), "loadtest/Cargo.toml".into()];
    for path in ["src", "crates", "cluster"].into_iter().flat_map(below).filter(|path| path.extension().is_some_and(|e| e == "rs")) {
        let text = std::fs::read_to_string(&path).expect("a text");
        let included = text.split("include_str!(\"").skip(1).filter_map(|rest| rest.split('"').next());
        let folder = path.parent().expect("a folder");
        needed.extend(included.map(|name| folder.join(name).canonicalize().expect("it is there")));
    }
    for path in needed {
        let path = path.strip_prefix(root()).unwrap_or(&path).to_string_lossy().into_owned();
        // Tests are not built there.
        assert!(path.starts_with("tests/golden/") || !ignored.iter().any(|name| path.starts_with(name)), "{path} is ignored");
    }
    for line in text("Dockerfile").lines().filter_map(|line| line.strip_prefix("COPY --chmod=755 ")) {
        let source = line.split(' ').next().expect("a file");
        assert!(root().join(source).exists() && ignored.iter().all(|name| *name != source), "{source}");
    }
}

/// A script of the deployment, with this program in its PATH.
fn run(script: &str, arguments: &[&str], variables: &[(&str, &Path)]) -> (bool, String) {
    let folder = Path::new(program()).parent().expect("a folder").to_string_lossy().into_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command.arg(root().join(script)).args(arguments).env("PATH", format!("{folder}:{path}")).stdin(Stdio::null());
    command.envs(variables.iter().copied());
    let output = command.output().expect("it runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn nodes_of_containers_join_once_and_by_another_invitation_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let folders = [("AUTHORITY", at("authority")), ("INVITATIONS", at("invitations"))];
    let folders: Vec<(&str, &Path)> = folders.iter().map(|(name, path)| (*name, path.as_path())).collect();
    for name in ["one", "two"] {
        std::fs::create_dir_all(at("invitations").join(name)).expect("a directory");
    }
    std::fs::create_dir_all(at("authority")).expect("a directory");
    let [first, second] = free_ports();
    let seeds = format!("{first},{second}");
    let invite = || run("deploy/compose/invite.sh", &[&seeds, "one", "two"], &folders);
    let token = |name: &str| std::fs::read_to_string(at("invitations").join(name).join("token")).expect("a token");
    assert!(invite().0);
    let before = (token("one"), token("two"));
    assert!(invite().0);
    assert_eq!((token("one"), token("two")), before, "a second start invites nobody again");
    assert_ne!(before.0, before.1);

    let invitation = |name: &str| at("invitations").join(name).join("token");
    let join = |name: &str| {
        let prefix = at(name);
        std::fs::create_dir_all(&prefix).expect("a directory");
        run("deploy/join.sh", &[invitation(name).to_str().expect("a text")], &[("TROOP_PREFIX", &prefix)])
    };
    let certificate = |name: &str| std::fs::read_to_string(at(name).join("cluster/node.crt")).expect("a certificate");
    assert!(join("one").0 && join("two").0);
    let was = certificate("one");
    assert!(join("one").0);
    assert_eq!(certificate("one"), was, "a second start changes nothing");
    let (well, why) = run("deploy/join.sh", &["/nowhere"], &[("TROOP_PREFIX", directory.path())]);
    assert!(!well && why.contains("no invitation"), "{why}");

    // They are nodes of one cluster.
    let start =
        |name: &str, listen: std::net::SocketAddr| Node::start(&borrowed(&settings(&at(name).join("cluster"), listen, &seeds, name)));
    let nodes = [start("one", first), start("two", second)];
    let alive = |node: &Node| {
        let all = get(node.admin, "/cluster/status").map(|answer| answer.json()["nodes"].clone()).unwrap_or_default();
        all.as_array().is_some_and(|all| all.len() == 2 && all.iter().all(|node| node["alive"] == true))
    };
    wait_for("they see each other", || nodes.iter().all(alive));
    let metrics = get(nodes[0].status, "/metrics").expect("metrics").text();
    let ends = metrics.lines().find_map(|line| line.strip_prefix("troop_cluster_certificate_expires_seconds ")).expect("when it ends");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!((364.0..366.0).contains(&((ends.parse::<f64>().expect("a number") - now) / 86_400.0)), "{ends}");

    // An invitation for the same node replaces its certificate, and it is still that node.
    let id = nodes[0].admin("GET", "/", Value::Null)["node_id"].as_str().expect("an id").to_owned();
    let (renewed, why) = run("deploy/compose/invite.sh", &["--renew", "one", &id], &folders);
    assert!(renewed, "{why}");
    assert!(join("one").0);
    assert_ne!(certificate("one"), was);
    nodes[0].signal(nix::sys::signal::Signal::SIGHUP);
    wait_for("certificates are read again", || nodes[0].log().contains("settings and certificates are read again"));
    let [one, _two] = nodes;
    let one = one.restart();
    assert_eq!(one.admin("GET", "/", Value::Null)["node_id"], id.as_str());
    // The invitation may go once it was used.
    std::fs::remove_file(invitation("one")).expect("it is there");
    assert!(join("one").0);
}

#[test]
fn three_nodes_on_one_machine_need_the_program() {
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path().join("nodes");
    let nowhere = directory.path().join("troop");
    let (well, why) = run("config/cluster/start.sh", &[folder.to_str().expect("a text")], &[("TROOP", &nowhere)]);
    assert!(!well && why.contains(&format!("there is no program {}", nowhere.display())), "{why}");
    assert!(!folder.exists(), "and nothing is begun");
}

/// In a container each program is process 1: the file of a node that was killed names the next one.
#[test]
fn a_node_starts_although_a_killed_one_had_its_process_number() {
    let directory = tempfile::tempdir().expect("a directory");
    let prefix = directory.path().join("prefix");
    std::fs::create_dir_all(prefix.join("pids")).expect("a directory");
    let [admin, proxy, status] = free_ports();
    let script = format!("echo $$ > '{}'; exec '{}' start", prefix.join("pids/troop.pid").display(), program());
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .env("TROOP_PREFIX", &prefix)
        .env("TROOP_ADMIN_LISTEN", admin.to_string())
        .env("TROOP_PROXY_LISTEN", proxy.to_string())
        .env("TROOP_STATUS_LISTEN", status.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    wait_for("it answers", || {
        assert!(child.try_wait().expect("a child").is_none(), "it did not start");
        get(status, "/status").is_some_and(|answer| answer.status == 200)
    });
    child.kill().expect("it is there");
    child.wait().expect("it ends");
}
