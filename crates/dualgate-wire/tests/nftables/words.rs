//! A table in nft's words, and the kernel's expressions for it.

use dualgate_wire::nftables::{Table, lower};

use crate::examples::{arp, every_word, relays, router};

#[test]
fn a_table_is_printed_in_words_that_nft_reads() {
    let [v4, v6] = relays();
    for (table, expected) in [
        (router(), include_str!("router.nft")),
        (arp(), include_str!("arp.nft")),
        (every_word(), include_str!("every_word.nft")),
        (v4, include_str!("relay_ip.nft")),
        (v6, include_str!("relay_ip6.nft")),
    ] {
        assert_eq!(table.to_string(), expected);
    }
}

/// The files were made by `nft --debug=netlink -c -f NAME.nft`, version 1.0.6, without what it says of sets and comments.
#[test]
fn rules_become_the_expressions_that_nft_makes_of_their_words() {
    let [v4, v6] = relays();
    for (table, expected) in [
        (router(), include_str!("router.expressions")),
        (arp(), include_str!("arp.expressions")),
        (every_word(), include_str!("every_word.expressions")),
        (v4, include_str!("relay_ip.expressions")),
        (v6, include_str!("relay_ip6.expressions")),
    ] {
        assert_eq!(expressions(&table), expected);
    }
}

fn expressions(table: &Table) -> String {
    let mut text = String::new();
    for chain in &table.chains {
        for rule in &chain.rules {
            text += &format!("{} {} {}\n", table.family, table.name, chain.name);
            for expression in lower(table.family, rule) {
                text += &format!("  {expression}\n");
            }
        }
    }
    text
}
