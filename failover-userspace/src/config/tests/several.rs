//! Problems of more than one value: what is missing, shared or too many, which line each problem is
//! on, and what a syntax error hides.

use super::{MINIMAL, parsed, printed};

#[test]
fn required_keys_are_missed_at_the_header() {
    let text = format!("{MINIMAL}\n[[virtual_router]]\npriority = 7\n");
    let expected = [
        "web.toml:7: name is missing: it must be 1 to 31 printable bytes without spaces, in quotes",
        "web.toml:7: interface is missing: it must be an interface name in quotes: 1 to 15 printable bytes without \
         spaces, '/' or ':'",
        "web.toml:7: vrid is missing: it must be a whole number from 1 to 255",
        "web.toml:7: addresses is missing: it must be a list of 1 to 20 IPv4 addresses, such as [\"192.0.2.10/24\"]",
    ];
    assert_eq!(printed(&text), expected);
}

#[test]
fn what_two_virtual_routers_cannot_share() {
    let second = r#"
[[virtual_router]]
name = "web"
interface = "eth0"
vrid = 51
addresses = [
    "192.0.2.11",
    "192.0.2.10/32",
    "192.0.2.11/24",
]
"#;
    let expected = [
        "web.toml:8: name \"web\" is taken by the virtual router on line 1: each has its own",
        "web.toml:10: vrid 51 is taken on eth0 by the virtual router on line 1",
        "web.toml:13: address \"192.0.2.10/32\" is taken on eth0 by the virtual router on line 1",
        "web.toml:14: address \"192.0.2.11/24\" is given twice: once is allowed",
    ];
    assert_eq!(printed(&format!("{MINIMAL}{second}")), expected);
    // On one line too: routers are told apart by where they are, not by their line.
    let inline = "{ name = \"a\", interface = \"b\", vrid = 1, addresses = [\"10.0.0.1\"] }";
    let expected = [
        "web.toml:1: name \"a\" is taken by the virtual router on line 1: each has its own",
        "web.toml:1: vrid 1 is taken on b by the virtual router on line 1",
        "web.toml:1: address \"10.0.0.1\" is taken on b by the virtual router on line 1",
    ];
    assert_eq!(printed(&format!("virtual_router = [{inline}, {inline}]")), expected);
}

#[test]
fn an_address_on_two_interfaces_is_one_that_nobody_resets() {
    let router = |n: u8, address: &str, action: &str| {
        format!(
            "[[virtual_router]]\nname = \"r{n}\"\ninterface = \"eth{n}\"\nvrid = 1\naddresses = [\"{address}\"]\n\
             stale_connections = {{ {action} }}\n"
        )
    };
    let (reset, pass, drop) = ("action = \"reset\"", "action = \"pass\"", "action = \"drop\"");
    let two = |first, second| router(1, "192.0.2.10/24", first) + &router(2, "192.0.2.10", second);
    let taken = |by: usize, at: usize| {
        format!(
            "web.toml:{at}: address \"192.0.2.10\" is taken by the virtual router on line {by}: an address is on one \
             interface only, unless stale_connections.action is \"pass\" in both"
        )
    };
    for (first, second) in [("", ""), (reset, pass), (pass, reset), ("", pass), (pass, ""), (pass, drop), (drop, pass)]
    {
        assert_eq!(printed(&two(first, second)), [taken(1, 11)], "{first:?}, {second:?}");
    }
    assert!(parsed(&two(pass, pass)).is_ok());
    assert!(parsed(&(router(1, "192.0.2.10", "") + &router(2, "192.0.2.11", ""))).is_ok());
    // The line is that of the one in the way.
    let three = two(pass, reset) + &router(3, "192.0.2.10", pass);
    assert_eq!(printed(&three), [taken(1, 11), taken(7, 17)]);
    // One mistake is one problem.
    assert_eq!(
        printed(&two(pass, "action = \"pas\"")),
        ["web.toml:12: stale_connections.action must be \"reset\", \"pass\" or \"drop\", not \"pas\""]
    );
}

#[test]
fn more_than_fits() {
    let addresses: Vec<_> = (1..=21).map(|host| format!("\"192.0.2.{host}\"")).collect();
    let twenty = format!("[{}]", addresses[..20].join(", "));
    assert!(parsed(&MINIMAL.replace("[\"192.0.2.10/24\"]", &twenty)).is_ok());
    let text = MINIMAL.replace("[\"192.0.2.10/24\"]", &format!("[{}]", addresses.join(", ")));
    assert_eq!(printed(&text), ["web.toml:5: 21 addresses: a virtual router takes 1 to 20"]);

    let router = |i: usize| {
        let router = MINIMAL.replace("web", &format!("r{i}")).replace("eth0", &format!("e{i}"));
        router.replace("192.0.2.10", &format!("10.{}.{}.1", i / 256, i % 256))
    };
    let mut text: String = (0..256).map(router).collect();
    assert!(parsed(&text).is_ok());
    text.push_str(&router(256));
    assert_eq!(printed(&text), ["web.toml:1281: 257 virtual routers: a node takes 1 to 256"]);

    text.push_str(&"#".repeat(super::FILE_BYTES_MAX));
    assert_eq!(printed(&text), ["web.toml: larger than 1 MiB: a configuration is at most that"]);
}

#[test]
fn nesting_has_a_bound() {
    let message = "nested more than 32 levels deep: no key needs more than 4";
    let cases = [
        (format!("\n{}a = 1", "a.".repeat(32)), 2),
        (format!("\n[{}a]", "a.".repeat(32)), 2),
        (format!("\n\na = {}", "[".repeat(32)), 3),
        (format!("\na = {}", "{ b.c = ".repeat(16)), 2),
    ];
    for (text, line) in cases {
        assert_eq!(printed(&text), [format!("web.toml:{line}: {message}")], "{text}");
    }
}

#[test]
fn all_problems_at_once_each_on_its_line() {
    let text = "[node]\r
realtime_priority = 100\r
\r
[[virtual_router]]\r
name = \"\"\"\r
web\"\"\"\r
interface = \"eth0\"\r
vrid = 0\r
addresses = [\"192.0.2.0/24\",\r
             # the next is wrong too\r
             \"::1\"]\r
\r
[[virtual_router]]\r
interface = \"eth0\"\r
vrid = 1\r
addresses = [\"192.0.2.2\"]\r
announce = { count = 0,\r
             interval = \"x\" }\r
[virtual_router.stale_connections]\r
action = \"rst\"\r
[[virtual_router]]\r
name = \"b\"\r
version = 5\r
advert_interval = \"15ms\"\r
";
    let no_host = "a virtual address is one that a host can have";
    let expected = [
        "web.toml:2: realtime_priority must be a whole number from 0 (off) to 99, not 100",
        "web.toml:8: vrid must be a whole number from 1 to 255, not 0",
        &format!("web.toml:9: address \"192.0.2.0/24\" is the network address of 192.0.2.0/24: {no_host}"),
        "web.toml:11: address \"::1\" is an IPv6 address: IPv6 is not supported yet",
        "web.toml:13: name is missing: it must be 1 to 31 printable bytes without spaces, in quotes",
        "web.toml:17: announce.count must be a whole number from 1 to 100, not 0",
        "web.toml:18: announce.interval must be a duration from \"0ms\" to \"10s\", not \"x\"",
        "web.toml:20: stale_connections.action must be \"reset\", \"pass\" or \"drop\", not \"rst\"",
        "web.toml:21: interface is missing: it must be an interface name in quotes: 1 to 15 printable bytes without \
         spaces, '/' or ':'",
        "web.toml:21: vrid is missing: it must be a whole number from 1 to 255",
        "web.toml:21: addresses is missing: it must be a list of 1 to 20 IPv4 addresses, such as [\"192.0.2.10/24\"]",
        "web.toml:23: version must be 2 or 3, not 5",
    ];
    assert_eq!(printed(text), expected);
}

#[test]
fn syntax_errors_come_with_what_is_certain() {
    // Behind the first place that is not TOML, and in a value that reaches it, all may mean anything.
    let unquoted = "not valid TOML: string values must be quoted, expected literal string";
    let vrid = "vrid must be a whole number from 1 to 255";
    let cases = [
        (
            "[[virtual_router]]\nvrid = 0\nname = web\nvrid = 1\n\n[[virtual_router]]\nvrid = 0\nname = \"a\n",
            vec![
                format!("2: {vrid}, not 0"),
                format!("3: {unquoted}"),
                "8: not valid TOML: invalid basic string, expected `\"`".to_owned(),
            ],
        ),
        (
            "[[virtual_router]]\naddresses = [\n = ]\nvrid = 0",
            vec!["3: not valid TOML: unexpected `=` in array, expected value, `]`".to_owned()],
        ),
        (
            "[[virtual_router]]\nvrid = 0\nname = = \"web\"\n",
            vec![format!("2: {vrid}, not 0"), "3: not valid TOML: extra `=`, expected nothing".to_owned()],
        ),
        (
            "[[virtual_router]]\nname = \"\"\"\nweb\nvrid = 0\n",
            vec!["4: not valid TOML: invalid multi-line basic string, expected `\"`".to_owned()],
        ),
    ];
    for (text, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|problem| format!("web.toml:{problem}")).collect();
        assert_eq!(printed(text), expected, "{text}");
    }
}
