//! What variables set: which key a name stands for, and how its text is read.

use super::*;

#[test]
fn lists_maps_and_named_sinks_can_be_set_by_variables() {
    let config = loaded(
        "sinks:\n  kafka:\n    Results:\n      topic: from-file\n",
        &[
            ("DRAKKAR_KAFKA__SOURCE_TOPICS", "a, b"),
            ("DRAKKAR_KAFKA__CLIENT_CONFIG__LINGER_MS", "5"),
            ("DRAKKAR_EXECUTOR__ENV__LC_ALL", "C"),
            ("DRAKKAR_EXECUTOR__ENV__A__B", "true"),
            ("DRAKKAR_EXECUTOR__ENV_INHERIT_DENY", "[\"A_*\", \"B\"]"),
            ("DRAKKAR_SINKS__KAFKA__RESULTS__TOPIC", "from-env"),
            ("DRAKKAR_SINKS__KAFKA__OTHER__TOPIC", "other"),
        ],
    )
    .config;
    assert_eq!(config.kafka.source_topics, ["a", "b"]);
    assert_eq!(config.kafka.client_config["linger.ms"], "5");
    assert_eq!(config.executor.env["LC_ALL"], "C");
    assert_eq!(config.executor.env["A__B"], "true");
    assert_eq!(config.executor.env_inherit_deny, ["A_*", "B"]);
    assert_eq!(config.sinks.kafka["Results"].topic, "from-env");
    assert_eq!(config.sinks.kafka["other"].topic, "other");
    assert_eq!(config.sinks.kafka.len(), 2);
}

#[test]
fn a_section_may_be_given_as_json() {
    let config = loaded("", &[("DRAKKAR_SINKS__KAFKA", r#"{"results": {"topic": "t"}}"#)]).config;
    assert_eq!(config.sinks.kafka["results"].topic, "t");
    refused(
        "",
        &[("DRAKKAR_SINKS__KAFKA", "{\"results\":")],
        &["DRAKKAR_SINKS__KAFKA: sinks.kafka: not valid JSON or YAML: unclosed bracket '{'"],
    );
}

#[test]
fn a_stray_variable_warns_and_one_with_two_underscores_is_an_error() {
    noted(
        "",
        &[
            ("DRAKKAR_PORT", "tcp://10.0.0.1:80"),
            ("DRAKKAR_KAFKA_BROKERS", "b:9092"),
            ("DRAKKAR_KAFKA", "x"),
            ("DRAKKAR_CONFIG", "drakkar.yaml"),
            ("DRAKKAR_TASK_OF", "17-f00.1"),
            ("PATH", "/bin"),
        ],
        &[
            "DRAKKAR_KAFKA: names no key; it is ignored",
            "DRAKKAR_KAFKA_BROKERS: names no key; it is ignored; did you mean \
             DRAKKAR_KAFKA__BROKERS?",
            "DRAKKAR_PORT: names no key; it is ignored",
        ],
    );
    refused(
        "",
        &[("DRAKKAR_KAFKA__BROKER", "b:9092")],
        &["DRAKKAR_KAFKA__BROKER: kafka.broker: unknown key; did you mean kafka.brokers?"],
    );
}

/// Both ways to write an entry of a list of numbers that were refused.
#[test]
fn a_list_of_numbers_may_be_comma_separated_and_its_numbers_quoted() {
    let yaml = "sinks: {http: {orders: {url: 'http://h', permanent_statuses: ['500', 0x1F6]}}}";
    let variable = "DRAKKAR_SINKS__HTTP__ORDERS__TRANSIENT_STATUSES";
    for (text, expected) in [("409", &[409][..]), ("409, 423", &[409, 423]), ("[409]", &[409])] {
        let config = loaded(yaml, &[(variable, text)]).config;
        let orders = &config.sinks.http["orders"];
        assert_eq!(
            (&*orders.transient_statuses, &*orders.permanent_statuses),
            (expected, &[500, 502][..])
        );
    }
    refused(
        yaml,
        &[(variable, "many")],
        &[&format!(
            "{variable}: sinks.http.orders.transient_statuses.0: expected a whole number from 0 to \
             65535, found \"many\""
        )],
    );
}

#[test]
fn a_list_of_texts_is_taken_as_it_was_written() {
    let config = loaded("kafka: {source_topics: [007, on, 1.10]}", &[]).config;
    assert_eq!(config.kafka.source_topics, ["007", "on", "1.10"]);
}

#[test]
fn what_is_json_in_the_configuration_may_be_json_in_a_variable() {
    let yaml = "sinks: {mongo: {m: {uri: 'mongodb://h', database: d, statements: {s: {
        collection: c}}}}}";
    let set = [
        ("DRAKKAR_SINKS__MONGO__M__STATEMENTS__S__FILTER", r#"{"_id": ":id"}"#),
        ("DRAKKAR_SINKS__MONGO__M__STATEMENTS__S__UPDATE", r#"{"$set": {"n": 1, "t": "1"}}"#),
    ];
    let statement = loaded(yaml, &set).config.sinks.mongo["m"].statements["s"].clone();
    assert_eq!(statement.filter, serde_json::json!({"_id": ":id"}));
    assert_eq!(statement.update, serde_json::json!({"$set": {"n": 1, "t": "1"}}));
}

#[test]
fn a_name_that_the_file_has_is_meant_as_the_file_writes_it() {
    let yaml = "
executor: {env: {Path: file}, programs: {p: {env: {Path: file}}}}
sinks:
  http: {orders: {url: 'http://h', headers: {Authorization: file, X-Team: ours}}}
  redis: {cache: {scripts: {Touch: file}}}
  postgres: {db: {dsn: 'postgres://h/d', statements: {Add: select 1}}}";
    let set = [
        ("DRAKKAR_SINKS__HTTP__ORDERS__HEADERS__AUTHORIZATION", "variable"),
        ("DRAKKAR_SINKS__HTTP__ORDERS__HEADERS__ACCEPT", "variable"),
        ("DRAKKAR_SINKS__REDIS__CACHE__SCRIPTS__TOUCH", "variable"),
        ("DRAKKAR_SINKS__POSTGRES__DB__STATEMENTS__ADD", "select 2"),
        // Variables of programs differ by case.
        ("DRAKKAR_EXECUTOR__ENV__PATH", "variable"),
        ("DRAKKAR_EXECUTOR__PROGRAMS__P__ENV__PATH", "variable"),
    ];
    let config = loaded(yaml, &set).config;
    let headers = &config.sinks.http["orders"].headers;
    let shown = headers.iter().map(|(name, value)| (name.as_str(), value.expose()));
    let expected = [("ACCEPT", "variable"), ("Authorization", "variable"), ("X-Team", "ours")];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    assert_eq!(config.sinks.redis["cache"].scripts["Touch"], "variable");
    assert_eq!(config.sinks.redis["cache"].scripts.len(), 1);
    assert_eq!(config.sinks.postgres["db"].statements["Add"], "select 2");
    for env in [&config.executor.env, &config.executor.programs["p"].env] {
        assert_eq!((env["Path"].as_str(), env["PATH"].as_str()), ("file", "variable"));
    }
}

#[test]
fn one_header_under_two_names_is_refused() {
    let headers = [(r#"{"AUTHORIZATION": "variable"}"#)];
    refused(
        "sinks:\n  http:\n    orders:\n      url: http://h\n      headers:\n        \
         Authorization: file\n",
        &[("DRAKKAR_SINKS__HTTP__ORDERS__HEADERS", headers[0])],
        &["FILE:6: sinks.http.orders.headers.Authorization: is the header AUTHORIZATION once more"],
    );
}
