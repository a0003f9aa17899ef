//! The world for people with Docker, as far as it can be checked without an engine: every field is one
//! we know, and what files name each other by is there on the other side.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::workspace::{read, root};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compose {
    services: BTreeMap<String, Service>,
    /// By name; ours have no options.
    volumes: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    image: Option<String>,
    build: Option<Build>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    command: Vec<String>,
    healthcheck: Option<Healthcheck>,
    deploy: Option<Deploy>,
    stop_grace_period: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    context: String,
    dockerfile: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dependency {
    condition: Condition,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Condition {
    ServiceHealthy,
    ServiceCompletedSuccessfully,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Healthcheck {
    test: Vec<String>,
    interval: String,
    timeout: String,
    retries: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deploy {
    replicas: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prometheus {
    global: BTreeMap<String, String>,
    scrape_configs: Vec<Scrape>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scrape {
    job_name: String,
    dns_sd_configs: Vec<DnsLookup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DnsLookup {
    names: Vec<String>,
    #[serde(rename = "type")]
    record: String,
    port: u16,
}

fn compose() -> Compose {
    serde_saphyr::from_str(&read("docker-compose.yml")).unwrap()
}

fn dockerfile() -> String {
    read("integration/worker/Dockerfile")
}

/// `500ms`, `5s`, `2m` as Docker and Prometheus write durations.
fn seconds(text: &str) -> u64 {
    text.strip_suffix('s')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{text} is not a number of seconds"))
}

#[test]
fn every_service_has_an_image_or_a_way_to_build_one() {
    for (name, service) in compose().services {
        assert!(service.image.is_some() != service.build.is_some(), "{name}");
        if let Some(image) = &service.image {
            assert!(
                image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest"),
                "{name}: {image}"
            );
        }
        if let Some(Build { context, dockerfile }) = &service.build {
            assert!(root().join(context).join(dockerfile).is_file(), "{name}: {dockerfile}");
        }
    }
}

#[test]
fn a_service_waits_only_for_what_the_other_can_reach() {
    let compose = compose();
    for (name, service) in &compose.services {
        for (other, Dependency { condition }) in &service.depends_on {
            let other = compose.services.get(other).unwrap_or_else(|| panic!("{name}: {other}"));
            assert!(
                *condition != Condition::ServiceHealthy || other.healthcheck.is_some(),
                "{name}"
            );
        }
        if let Some(health) = &service.healthcheck {
            assert_eq!(health.test[0], "CMD", "{name}");
            assert!(
                seconds(&health.interval) * u64::from(health.retries) >= 60,
                "{name} starts slowly"
            );
            assert!(seconds(&health.timeout) > 0, "{name}");
        }
    }
}

#[test]
fn ports_are_published_on_loopback_only() {
    for (name, service) in compose().services {
        for port in service.ports {
            let parts: Vec<&str> = port.split(':').collect();
            assert_eq!((parts.len(), parts[0]), (3, "127.0.0.1"), "{name}: {port}");
            assert!(
                parts[1..].iter().all(|number| number.parse::<u16>().is_ok()),
                "{name}: {port}"
            );
        }
    }
}

#[test]
fn mounted_files_exist_and_named_volumes_are_declared() {
    let compose = compose();
    for (name, service) in &compose.services {
        for volume in &service.volumes {
            let source = volume.split(':').next().unwrap();
            let known = match source.strip_prefix("./") {
                Some(path) => root().join(path).is_file(),
                None => compose.volumes.contains_key(source),
            };
            assert!(known, "{name}: {volume}");
        }
    }
}

#[test]
fn the_workers_get_a_configuration_that_a_worker_accepts() {
    let compose = compose();
    let worker = &compose.services["worker"];
    assert_eq!(worker.deploy.as_ref().unwrap().replicas, 2);
    let loaded = drakkar::config::load(
        Some(&root().join("config/worker.yaml")),
        worker.environment.clone().into_iter(),
    )
    .unwrap();
    let config = &loaded.config;

    let kafka = &compose.services["kafka"].environment;
    let inside = format!("PLAINTEXT://{}", config.kafka.brokers);
    assert!(kafka["KAFKA_ADVERTISED_LISTENERS"].split(',').any(|listener| listener == inside));
    let script = &compose.services["topics"].command[0];
    for topic in ["search-requests", "search-results", "search-requests_dlq"] {
        assert!(script.contains(topic), "{topic}");
    }
    assert_eq!(compose.services["topics"].entrypoint, ["/bin/bash", "-ec"]);
    assert_eq!(config.kafka.topics(), ["search-requests"]);
    assert_eq!(config.sinks.kafka["results"].topic, "search-results");

    let grace = seconds(worker.stop_grace_period.as_deref().unwrap());
    assert!(config.stopping().as_secs() < grace, "{:?}", config.stopping());
    let mounted = worker.volumes[0].split_once(':').unwrap().1;
    let base = config.sinks.filesystem["hits"].base_path.to_str().unwrap();
    assert_eq!(mounted, base);
    assert!(dockerfile().contains(&format!("-o drakkar {base}")), "the user must own {base}");
}

#[test]
fn prometheus_scrapes_every_worker_where_it_listens() {
    let prometheus: Prometheus = serde_saphyr::from_str(&read("config/prometheus.yml")).unwrap();
    assert!(seconds(&prometheus.global["scrape_interval"]) > 0);
    let [Scrape { job_name, dns_sd_configs }] = prometheus.scrape_configs.as_slice() else {
        panic!("one job is expected")
    };
    assert_eq!(job_name, "drakkar");
    let DnsLookup { names, record, port } = &dns_sd_configs[0];
    assert_eq!((names.as_slice(), record.as_str()), (&["worker".to_owned()][..], "A"));
    assert_eq!(*port, drakkar::Config::default().metrics.port);
    assert!(compose().services.contains_key("worker"));
    assert!(dockerfile().contains(&format!("EXPOSE {port}\n")));
}

#[test]
fn the_dockerfile_copies_what_is_there_and_runs_the_worker_as_process_1() {
    let text = dockerfile();
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    let (major_minor, _) = channel.rsplit_once('.').unwrap();
    assert!(text.contains(&format!("FROM rust:{major_minor}-")), "the toolchain is {channel}");
    for line in text.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let source = line.split_whitespace().nth(1).unwrap();
        assert!(root().join(source).exists(), "{line}");
    }
    let entrypoint = text.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    let command: Vec<String> = serde_json::from_str(entrypoint).unwrap();
    for path in command {
        assert!(
            text.lines().any(|line| line.starts_with("COPY ") && line.ends_with(&path)),
            "{path}"
        );
    }
}

#[test]
fn documents_and_examples_name_the_longest_stop() {
    let config = drakkar::Config::default();
    let longest = config.stopping().as_secs();
    let executor = &config.executor;
    let set = executor.drain_timeout_seconds + executor.kill_grace + executor.pipe_grace * 2;
    let fixed = longest - set.as_secs();
    let delivery = read("docs/delivery.md");
    assert!(delivery.contains(&format!("executor.pipe_grace + {fixed} s")), "{fixed}");
    assert!(delivery.contains(&format!("the sum is {longest} s")), "{longest}");
    assert!(read("docker-compose.yml").contains(&format!("prints ({longest} s)")), "{longest}");
}
