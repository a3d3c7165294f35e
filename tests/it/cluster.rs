//! More than one node: real processes and real Redis servers, with every fault that a network, a machine or an operator causes.

mod anywhere;
mod dead_nodes;
mod every_route;
mod lists;
mod lost_link;
mod lost_redis;
mod outage;
mod refusals;
mod rolling_restart;
mod sentinel;
