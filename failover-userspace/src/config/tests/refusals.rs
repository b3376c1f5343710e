//! What one value is refused for: the file that an operator wrote, and every line that `failover
//! check` answers. What several values do to each other stands in several.rs.

use super::{MINIMAL, printed};

/// The cases of refused.txt: lines added to MINIMAL.
#[test]
fn a_wrong_key_of_a_virtual_router() {
    let cases = include_str!("refused.txt").split("\n\n").filter(|case| !case.starts_with('#'));
    let mut count = 0;
    for case in cases {
        let lines =
            |mark: &str| case.lines().filter_map(|line| line.strip_prefix(mark).map(str::to_owned)).collect::<Vec<_>>();
        let (added, expected) = (lines("+ "), lines("= "));
        assert_eq!(added.len() + expected.len(), case.lines().count(), "{case}");
        assert_eq!(printed(&format!("{MINIMAL}{}\n", added.join("\n"))), expected, "{case}");
        count += 1;
    }
    assert_eq!(count, 56);
}

/// One line of MINIMAL replaced.
#[test]
fn a_wrong_required_key() {
    let name = "name must be 1 to 31 printable bytes without spaces, in quotes";
    let interface = "interface must be an interface name in quotes: 1 to 15 printable bytes without spaces, '/' or ':'";
    let vrid = "vrid must be a whole number from 1 to 255";
    let addresses = "addresses must be a list of 1 to 20 IPv4 addresses, such as [\"192.0.2.10/24\"]";
    let cases = [
        ("\"web\"", "\"\"", 2, format!("{name}, not \"\"")),
        ("\"web\"", "\"a b\"", 2, format!("{name}, not \"a b\"")),
        ("\"web\"", "\"a\u{a0}b\"", 2, format!("{name}, not \"a\u{a0}b\"")),
        ("\"web\"", "\"a\\tb\"", 2, format!("{name}, not \"a\\tb\"")),
        ("\"web\"", "\"a\u{202e}b\"", 2, format!("{name}, not \"a\u{202e}b\"")),
        (
            "\"web\"",
            "\"a-name-of-exactly-32-bytes-long.\"",
            2,
            format!("{name}, not \"a-name-of-exactly-32-bytes-long.\""),
        ),
        ("\"web\"", "['a']", 2, format!("{name}, not a list")),
        ("\"eth0\"", "\"\"", 3, format!("{interface}, not \"\"")),
        ("\"eth0\"", "\"sixteen-bytes..0\"", 3, format!("{interface}, not \"sixteen-bytes..0\"")),
        ("\"eth0\"", "\"eth0/1\"", 3, format!("{interface}, not \"eth0/1\"")),
        ("\"eth0\"", "\"eth0:1\"", 3, format!("{interface}, not \"eth0:1\"")),
        ("\"eth0\"", "\"eth 0\"", 3, format!("{interface}, not \"eth 0\"")),
        ("\"eth0\"", "\"..\"", 3, format!("{interface}, not \"..\"")),
        ("51", "0", 4, format!("{vrid}, not 0")),
        ("51", "256", 4, format!("{vrid}, not 256")),
        ("51", "\"51\"", 4, format!("{vrid}, not \"51\"")),
        ("51", "0x1_0000_0000_0000_0000", 4, format!("{vrid}, not 0x1_0000_0000_0000_0000")),
        ("51", "{}", 4, format!("{vrid}, not a table")),
        ("[\"192.0.2.10/24\"]", "[]", 5, format!("{addresses}, not an empty list")),
        ("[\"192.0.2.10/24\"]", "\"192.0.2.10/24\"", 5, format!("{addresses}, not \"192.0.2.10/24\"")),
        ("[\"192.0.2.10/24\"]", "[192]", 5, format!("{addresses}, not of 192")),
    ];
    for (from, to, line, message) in cases {
        assert_eq!(printed(&MINIMAL.replace(from, to)), [format!("web.toml:{line}: {message}")], "{to}");
    }
}

/// MINIMAL's address replaced.
#[test]
fn an_address_that_no_host_has() {
    let form = "is not an IPv4 address with a prefix length of 1 to 32, such as \"192.0.2.10/24\"";
    let no_host = ": a virtual address is one that a host can have";
    let cases = [
        ("2001:db8::10/64", "is an IPv6 address: IPv6 is not supported yet".to_owned()),
        ("fe80::1", "is an IPv6 address: IPv6 is not supported yet".to_owned()),
        ("", form.to_owned()),
        ("web.example", form.to_owned()),
        ("192.0.2.256/24", form.to_owned()),
        ("192.0.2.010/24", form.to_owned()),
        ("192.0.2.10:80", form.to_owned()),
        ("192.0.2.10/33", form.to_owned()),
        ("192.0.2.10/0", form.to_owned()),
        ("192.0.2.10/+4", form.to_owned()),
        ("192.0.2.10/", form.to_owned()),
        ("192.0.2.10/255.255.255.0", form.to_owned()),
        ("0.0.0.0", format!("is the unspecified address{no_host}")),
        ("127.0.0.2/8", format!("is a loopback address{no_host}")),
        ("224.0.0.18", format!("is a multicast address{no_host}")),
        ("239.255.255.255/32", format!("is a multicast address{no_host}")),
        ("255.255.255.255", format!("is the broadcast address of every network{no_host}")),
        ("192.0.2.0/24", format!("is the network address of 192.0.2.0/24{no_host}")),
        ("192.0.2.255/24", format!("is the broadcast address of 192.0.2.0/24{no_host}")),
        ("192.0.2.4/30", format!("is the network address of 192.0.2.4/30{no_host}")),
        ("192.0.2.7/30", format!("is the broadcast address of 192.0.2.4/30{no_host}")),
    ];
    for (address, reason) in cases {
        let text = MINIMAL.replace("192.0.2.10/24", address);
        assert_eq!(printed(&text), [format!("web.toml:5: address \"{address}\" {reason}")]);
    }
}

/// Tables before MINIMAL, or instead of it.
#[test]
fn a_wrong_table() {
    let name = "name must be 1 to 63 printable bytes without spaces, in quotes";
    let pin_path = "pin_path must be an absolute path, in quotes";
    let long = "x".repeat(64);
    let cases = [
        ("[node]\nname = \"\"", 2, format!("{name}, not \"\"")),
        ("[node]\nname = \"edge a\"", 2, format!("{name}, not \"edge a\"")),
        (&format!("[node]\nname = \"{long}\""), 2, format!("{name}, not \"{}…", &long[..39])),
        (
            "[node]\nrealtime_priority = 100",
            2,
            "realtime_priority must be a whole number from 0 (off) to 99, not 100".to_owned(),
        ),
        (
            "[node]\nrealtime_priority = -1",
            2,
            "realtime_priority must be a whole number from 0 (off) to 99, not -1".to_owned(),
        ),
        ("[node]\nnick = \"a\"", 2, "unknown key nick in [node]: allowed are name, realtime_priority".to_owned()),
        ("node = 1", 1, "node must be a table: [node], not 1".to_owned()),
        ("[[node]]", 1, "node must be a table: [node], not a list".to_owned()),
        ("[data_plane]\npin_path = \"bpf\"", 2, format!("{pin_path}, not \"bpf\"")),
        ("[data_plane]\npin_path = \"\"", 2, format!("{pin_path}, not \"\"")),
        ("[data_plane]\npin_path = \"/a\\u0000b\"", 2, format!("{pin_path}, not \"/a\\u0000b\"")),
        (
            "[data_plane]\n\nxdp_mode = \"fast\"",
            3,
            "xdp_mode must be \"auto\", \"native\" or \"generic\", not \"fast\"".to_owned(),
        ),
        (
            "[data_plane]\nmode = 1",
            2,
            "unknown key mode in [data_plane]: allowed are pin_path, xdp_mode, flows_max, resets_per_second".to_owned(),
        ),
        (
            "[data_plane]\ninterface = '''\n'''",
            2,
            "unknown key interface in [data_plane]: allowed are pin_path, xdp_mode, flows_max, resets_per_second"
                .to_owned(),
        ),
        (
            "[data_plane]\nflows_max = 1023",
            2,
            "flows_max must be a whole number from 1024 to 4194304, not 1023".to_owned(),
        ),
        (
            "[data_plane]\nflows_max = 4194305",
            2,
            "flows_max must be a whole number from 1024 to 4194304, not 4194305".to_owned(),
        ),
        (
            "[data_plane]\nresets_per_second = 0",
            2,
            "resets_per_second must be a whole number from 1 to 100000000, for each CPU, not 0".to_owned(),
        ),
        (
            "[nodes]",
            1,
            "unknown key nodes at the top level: allowed are node, data_plane, replication, virtual_router".to_owned(),
        ),
        ("[node]\n[node]", 2, "node is given twice: once is allowed".to_owned()),
        ("[node", 1, "not valid TOML: unclosed table, expected `]`".to_owned()),
    ];
    for (table, line, message) in cases {
        assert_eq!(printed(&format!("{table}\n{MINIMAL}")), [format!("web.toml:{line}: {message}")], "{table}");
    }
    let none = "web.toml:1: no virtual router: at least one [[virtual_router]] is needed";
    assert_eq!(printed(""), [none]);
    assert_eq!(printed("# nothing\n[node]\n"), [none]);
    assert_eq!(printed("# nothing\nvirtual_router = []\n"), [none.replace(":1:", ":2:")]);
    let list = "virtual_router must be a list of tables: [[virtual_router]]";
    assert_eq!(printed("\n[virtual_router]\n"), [format!("web.toml:2: {list}, not a table")]);
    assert_eq!(printed("\nvirtual_router = [1]\n")[0], format!("web.toml:2: {list}, not 1"));
}

#[test]
fn a_host_name_that_is_no_node_name() {
    let problem = "name is missing in [node] and the host name does not do: it must be 1 to 63 printable bytes without \
                   spaces, in quotes";
    for (text, line) in [(MINIMAL.to_owned(), 1), (format!("{MINIMAL}[node]\n"), 6)] {
        let long = "x".repeat(64);
        let problems = super::parse("web.toml".as_ref(), &text, &long).expect_err("a host name of 64 bytes");
        assert_eq!(
            problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [format!("web.toml:{line}: {problem}")]
        );
    }
}
