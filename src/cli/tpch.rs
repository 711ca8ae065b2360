//! Owns the demo's data: TPC-H, its tables as DDL, what each is sharded by, and its rows as COPY text.
//! See <https://www.tpc.org/tpch/>; rows come from the crate `tpchgen`, the same at each run.

use std::fmt::{Display, Write};
use tpchgen::distribution::Distributions;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};
use tpchgen::text::TextPool;

/// A hundredth of TPC-H's unit: 87,000 rows.
pub const SCALE: f64 = 0.01;

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `region`.
    Region,
    /// `nation`.
    Nation,
    /// `supplier`.
    Supplier,
    /// `customer`.
    Customer,
    /// `part`.
    Part,
    /// `partsupp`.
    PartSupp,
    /// `orders`.
    Orders,
    /// `lineitem`.
    LineItem,
}

impl Table {
    /// In an order that foreign keys allow.
    pub const ALL: [Self; 8] = [
        Self::Region,
        Self::Nation,
        Self::Supplier,
        Self::Customer,
        Self::Part,
        Self::PartSupp,
        Self::Orders,
        Self::LineItem,
    ];

    /// As SQL calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Nation => "nation",
            Self::Supplier => "supplier",
            Self::Customer => "customer",
            Self::Part => "part",
            Self::PartSupp => "partsupp",
            Self::Orders => "orders",
            Self::LineItem => "lineitem",
        }
    }

    /// The column that spreads the rows; `None` for the two that are small and everywhere.
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::Region | Self::Nation => None,
            Self::Supplier => Some("s_suppkey"),
            Self::Customer => Some("c_custkey"),
            Self::Part => Some("p_partkey"),
            Self::PartSupp => Some("ps_partkey"),
            Self::Orders => Some("o_orderkey"),
            Self::LineItem => Some("l_orderkey"),
        }
    }

    /// The key is part of each primary key, and foreign keys stay within a shard: an order's customer may live
    /// elsewhere, so that one is missing.
    pub fn ddl(self) -> &'static str {
        match self {
            Self::Region => {
                "CREATE TABLE region (r_regionkey int PRIMARY KEY, r_name varchar(25) NOT NULL, r_comment varchar(152))"
            }
            Self::Nation => {
                "CREATE TABLE nation (n_nationkey int PRIMARY KEY, n_name varchar(25) NOT NULL, \
                 n_regionkey int NOT NULL REFERENCES region, n_comment varchar(152))"
            }
            Self::Supplier => {
                "CREATE TABLE supplier (s_suppkey bigint PRIMARY KEY, s_name varchar(25) NOT NULL, \
                 s_address varchar(40) NOT NULL, s_nationkey int NOT NULL REFERENCES nation, s_phone varchar(15) NOT NULL, \
                 s_acctbal numeric(15,2) NOT NULL, s_comment varchar(101) NOT NULL)"
            }
            Self::Customer => {
                "CREATE TABLE customer (c_custkey bigint PRIMARY KEY, c_name varchar(25) NOT NULL, \
                 c_address varchar(40) NOT NULL, c_nationkey int NOT NULL REFERENCES nation, c_phone varchar(15) NOT NULL, \
                 c_acctbal numeric(15,2) NOT NULL, c_mktsegment varchar(10) NOT NULL, c_comment varchar(117) NOT NULL)"
            }
            Self::Part => {
                "CREATE TABLE part (p_partkey bigint PRIMARY KEY, p_name varchar(55) NOT NULL, p_mfgr varchar(25) NOT NULL, \
                 p_brand varchar(10) NOT NULL, p_type varchar(25) NOT NULL, p_size int NOT NULL, \
                 p_container varchar(10) NOT NULL, p_retailprice numeric(15,2) NOT NULL, p_comment varchar(23) NOT NULL)"
            }
            Self::PartSupp => {
                "CREATE TABLE partsupp (ps_partkey bigint NOT NULL REFERENCES part, ps_suppkey bigint NOT NULL, \
                 ps_availqty int NOT NULL, ps_supplycost numeric(15,2) NOT NULL, ps_comment varchar(199) NOT NULL, \
                 PRIMARY KEY (ps_partkey, ps_suppkey))"
            }
            Self::Orders => {
                "CREATE TABLE orders (o_orderkey bigint PRIMARY KEY, o_custkey bigint NOT NULL, o_orderstatus varchar(1) NOT NULL, \
                 o_totalprice numeric(15,2) NOT NULL, o_orderdate date NOT NULL, o_orderpriority varchar(15) NOT NULL, \
                 o_clerk varchar(15) NOT NULL, o_shippriority int NOT NULL, o_comment varchar(79) NOT NULL)"
            }
            Self::LineItem => {
                "CREATE TABLE lineitem (l_orderkey bigint NOT NULL REFERENCES orders, l_partkey bigint NOT NULL, \
                 l_suppkey bigint NOT NULL, l_linenumber int NOT NULL, l_quantity numeric(15,2) NOT NULL, \
                 l_extendedprice numeric(15,2) NOT NULL, l_discount numeric(15,2) NOT NULL, l_tax numeric(15,2) NOT NULL, \
                 l_returnflag varchar(1) NOT NULL, l_linestatus varchar(1) NOT NULL, l_shipdate date NOT NULL, \
                 l_commitdate date NOT NULL, l_receiptdate date NOT NULL, l_shipinstruct varchar(25) NOT NULL, \
                 l_shipmode varchar(10) NOT NULL, l_comment varchar(44) NOT NULL, PRIMARY KEY (l_orderkey, l_linenumber))"
            }
        }
    }

    /// The rows as COPY's text format: a line each, columns separated by tabs.
    pub fn copy_text(self, words: &Words) -> String {
        let Words {
            distributions,
            pool,
        } = words;
        match self {
            Self::Region => lines(
                RegionGenerator::new_with_distributions_and_text_pool(distributions, pool).iter(),
            ),
            Self::Nation => lines(
                NationGenerator::new_with_distributions_and_text_pool(distributions, pool).iter(),
            ),
            Self::Supplier => lines(
                SupplierGenerator::new_with_distributions_and_text_pool(
                    SCALE,
                    1,
                    1,
                    distributions,
                    pool,
                )
                .iter(),
            ),
            Self::Customer => lines(
                CustomerGenerator::new_with_distributions_and_text_pool(
                    SCALE,
                    1,
                    1,
                    distributions,
                    pool,
                )
                .iter(),
            ),
            Self::Part => lines(
                PartGenerator::new_with_distributions_and_text_pool(
                    SCALE,
                    1,
                    1,
                    distributions,
                    pool,
                )
                .iter(),
            ),
            Self::PartSupp => {
                lines(PartSuppGenerator::new_with_text_pool(SCALE, 1, 1, pool).iter())
            }
            Self::Orders => lines(
                OrderGenerator::new_with_distributions_and_text_pool(
                    SCALE,
                    1,
                    1,
                    distributions,
                    pool,
                )
                .iter(),
            ),
            Self::LineItem => lines(
                LineItemGenerator::new_with_distributions_and_text_pool(
                    SCALE,
                    1,
                    1,
                    distributions,
                    pool,
                )
                .iter(),
            ),
        }
    }
}

/// What comments are made of.
#[derive(Debug)]
pub struct Words {
    distributions: &'static Distributions,
    pool: TextPool,
}

impl Default for Words {
    fn default() -> Self {
        Self::new()
    }
}

impl Words {
    /// A pool of 1 MB; TPC-H's own takes 300 MB and a second. So comments differ from TPC-H's, and nothing else does.
    pub fn new() -> Self {
        let distributions = Distributions::static_default();
        Self {
            distributions,
            pool: TextPool::new(1 << 20, distributions),
        }
    }
}

/// The generators print `a|b|c|`, as TPC-H's own program does; no value holds a bar, a tab or a backslash.
fn lines(rows: impl Iterator<Item = impl Display>) -> String {
    let mut text = String::new();
    for row in rows {
        let start = text.len();
        write!(text, "{row}").expect("writing to a string");
        debug_assert!(!text[start..].contains(['\t', '\\', '\n']));
        text.truncate(text.trim_end_matches('|').len());
        text.push('\n');
    }
    text.replace('|', "\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_as_many_columns_as_its_table() {
        let counts = [5, 25, 100, 1500, 2000, 8000, 15_000, 60_175];
        let words = Words::new();
        for (table, count) in Table::ALL.into_iter().zip(counts) {
            let inside = table.ddl().split_once('(').unwrap().1.replace("(15,2)", "");
            let columns = inside
                .split(", ")
                .filter(|column| !column.starts_with("PRIMARY") && column.contains(' '))
                .count();
            let text = table.copy_text(&words);
            assert_eq!(text.lines().count(), count, "{}", table.name());
            assert!(
                text.lines().all(|line| line.split('\t').count() == columns),
                "{}",
                table.name()
            );
        }
    }

    #[test]
    fn keys_are_part_of_the_primary_keys() {
        for table in Table::ALL {
            let Some(key) = table.key() else { continue };
            let (_, column) = table.ddl().split_once(&format!("{key} bigint ")).unwrap();
            let (_, primary) = table.ddl().split_once("PRIMARY KEY (").unwrap_or(("", ""));
            assert!(
                column.starts_with("PRIMARY KEY") || primary.starts_with(key),
                "{}",
                table.name()
            );
        }
    }
}
