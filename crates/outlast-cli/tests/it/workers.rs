//! `worker`, `work` and `up`.

use serde_json::json;

use crate::handlers::sh;
use crate::home::Home;

#[test]
fn a_worker_is_listed_and_stops_when_it_is_asked_to() {
    let home = sh("echo up > ready; cat go", "[worker]\nslots = 3\n[queues]\ndefault = 2");
    home.fifo("ready");
    home.fifo("go");
    home.enqueue(&["t"]);
    let mut worker = home.start(&["work"]);
    home.hear("ready");
    let seen = std::iter::repeat_with(|| home.json(&["worker", "list"]));
    let seen = seen.take(3000).find(|workers| workers.first().is_some_and(|w| w["active"] == 1));
    let view = seen.expect("the worker beats").remove(0);
    assert_eq!((&view["slots"], &view["queues"]), (&json!(3), &json!([["default", 2]])));
    assert_eq!(view["pid"], worker.child().id());
    let id = view["id"].as_str().expect("has an id");
    assert_eq!(home.json(&["stats"])[0]["workers"], 1);
    home.run(&["worker", "stop", "nobody"]).refused(5, "no worker nobody is alive");
    assert_eq!(home.run(&["worker", "quiet", id]).code, 0);
    assert_eq!(home.run(&["worker", "stop", id]).stdout, format!("{id} was asked to stop\n"));
    home.write("go", "go");
    assert_eq!(worker.wait(), 0, "{}", home.read("log"));
    assert_eq!(worker.rest(), ["1 succeeded, 0 failed"]);
    assert!(home.json(&["worker", "list"]).is_empty());
}

#[test]
fn work_ends_with_0_when_nothing_is_left_and_tells_what_it_did() {
    let home = sh("exit $(cat)", "");
    let did = home.run(&["work", "--exit-when-empty", "--json"]);
    assert_eq!((did.code, &did.objects()[0]["succeeded"]), (0, &json!(0)));
    home.enqueue(&["t", "--payload", "0"]);
    home.enqueue(&["t", "--payload", "65"]);
    let did = home.run(&["work", "--exit-when-empty", "--json"]).objects().remove(0);
    assert_eq!((&did["succeeded"], &did["failed"]), (&json!(1), &json!(1)));
}

#[test]
fn only_the_queues_that_are_asked_for_are_served() {
    let home = Home::with("[queues]\na = 1\nb = 1\n[[handler]]\ntype = 't'\ncommand = ['true']");
    for queue in ["a", "b", "c"] {
        home.enqueue(&["t", "--queue", queue]);
    }
    assert_eq!(home.run(&["work", "--exit-when-empty", "--queues", "a=3,c"]).code, 0);
    let pending = |queue: &str| home.json(&["queue", "show", queue])[0]["pending"].clone();
    assert_eq!([pending("a"), pending("b"), pending("c")], [json!(0), json!(1), json!(0)]);
    home.run(&["work", "--queues", "a=0"]).refused(2, "has no weight of 1 or more");
    home.run(&["work", "--queues", "a,a"]).refused(2, "names a twice");
    home.run(&["work", "--slots", "0"]).refused(2, "slots 0 (--slots) is not between 1 and");
}

#[test]
fn up_says_what_it_does_and_what_to_type_next_and_that_works() {
    let home = Home::empty();
    let script =
        "[queues]\nfiles = 1\n[[handler]]\ntype = 'demo:*'\ncommand = ['sh', '-c', 'cat > got']";
    std::fs::create_dir(home.path("app")).expect("the folder can be written");
    home.write("app/my.toml", script);
    home.fifo("got");
    let mut up = home.start(&["up", "--config", "app/my.toml"]);
    assert!(up.line().contains("on files"));
    let next = up.line();
    let next = next.strip_prefix("try:  outlast ").expect("says what to type");
    let args: Vec<&str> = next.split(' ').collect();
    assert_eq!(home.run(&args).code, 0, "{next}");
    assert_eq!(home.hear("got"), "hello");
    up.signal("-INT");
    assert_eq!(up.wait(), 0);
}
