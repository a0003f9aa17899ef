//! What the section refuses, and what the client is told.

use super::*;

#[track_caller]
fn refused(json: &str, begins: &str) {
    let config: KafkaConfig = serde_json::from_str(json).unwrap();
    let wrong = config.validate();
    assert!(wrong.iter().any(|text| text.starts_with(begins)), "{json}: {wrong:?}");
}

#[test]
fn the_defaults_are_valid_and_survive_being_written_and_read() {
    let config = KafkaConfig::default();
    assert_eq!(config.validate(), Vec::<String>::new());
    let written = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<KafkaConfig>(&written).unwrap(), config);
}

#[test]
fn what_cannot_work_is_refused_with_its_key() {
    refused(r#"{"brokers": ""}"#, "kafka.brokers:");
    refused(r#"{"source_topic": ""}"#, "kafka.source_topic:");
    refused(r#"{"source_topic": "a", "source_topics": ["b"]}"#, "kafka.source_topics:");
    refused(r#"{"source_topics": ["b", "b"]}"#, "kafka.source_topics:");
    refused(r#"{"revoke_timeout": 297}"#, "kafka.revoke_timeout:");
    refused(r#"{"heartbeat_interval_ms": 45000}"#, "kafka.heartbeat_interval_ms:");
    refused(r#"{"startup_align_interval_seconds": 0}"#, "kafka.startup_align_interval");
    refused(r#"{"startup_min_wait_seconds": -1}"#, "kafka.startup_min_wait_seconds:");
    refused(r#"{"group_instance_id": ""}"#, "kafka.group_instance_id:");
    refused(r#"{"group_instance_id": "{worker-id}"}"#, "kafka.group_instance_id:");
}

#[test]
fn what_the_client_refuses_is_found_before_it_is_started_under_the_key_that_was_set() {
    refused(r#"{"client_config": {"no.such": "1"}}"#, "kafka.client_config.no.such: No such");
    refused(
        r#"{"client_config": {"auto.offset.reset": "never"}}"#,
        "kafka.client_config.auto.offset.reset: ",
    );
    refused(r#"{"max_poll_interval_ms": 90000000}"#, "kafka.max_poll_interval_ms: ");
    refused(
        r#"{"session_timeout_ms": 4000000, "max_poll_interval_ms": 5000000}"#,
        "kafka.session_timeout_ms: ",
    );
}

#[test]
fn a_property_the_worker_owns_is_refused_with_the_key_to_use() {
    refused(
        r#"{"client_config": {"group.id": "g"}}"#,
        "kafka.client_config.group.id: is not free to choose; set kafka.consumer_group",
    );
    for (name, _) in RESERVED {
        let json = format!(r#"{{"client_config": {{"{name}": "1"}}}}"#);
        refused(&json, &format!("kafka.client_config.{name}:"));
    }
}

#[cfg(not(feature = "ssl"))]
#[test]
fn encryption_without_its_cargo_feature_is_refused() {
    refused(r#"{"security": {"protocol": "SASL_SSL"}}"#, "kafka.security.protocol:");
}

#[test]
fn the_prefix_goes_before_every_topic() {
    let json = r#"{"topic_prefix": "eu.", "source_topics": ["a", "b"]}"#;
    let config: KafkaConfig = serde_json::from_str(json).unwrap();
    assert_eq!(config.topics(), ["eu.a", "eu.b"]);
}

#[test]
fn the_worker_id_can_be_part_of_the_name_in_the_group() {
    let json = r#"{"group_instance_id": "blue-{worker_id}"}"#;
    let config: KafkaConfig = serde_json::from_str(json).unwrap();
    assert_eq!(config.validate(), Vec::<String>::new());
    assert_eq!(config.properties("w1").get("group.instance.id"), Some("blue-w1"));
    assert_eq!(KafkaConfig::default().properties("w1").get("group.instance.id"), None);
}

#[test]
fn client_config_overrides_what_is_free_to_choose() {
    let json =
        r#"{"client_config": {"auto.offset.reset": "latest"}, "group_protocol": "consumer"}"#;
    let config: KafkaConfig = serde_json::from_str(json).unwrap();
    let properties = config.properties("w1");
    assert_eq!(properties.get("auto.offset.reset"), Some("latest"));
    assert_eq!(properties.get("session.timeout.ms"), None, "the brokers decide");
}
