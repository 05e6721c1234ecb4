//! PostgreSQL, RabbitMQ and SeaweedFS for a fleet on this machine, to try things by hand: prints what `reelyard serve`
//! wants to know of them, and ends them when its standard input ends.

use reelyard_testkit::{ACCESS_KEY_ID, Kind, PostgresServer, RabbitServer, S3Server, SECRET_ACCESS_KEY};
use std::io::Read as _;

fn main() {
    let (Some(database), Some(broker), Some(storage)) =
        (PostgresServer::start(), RabbitServer::start(), S3Server::start(Kind::SeaweedFs))
    else {
        return;
    };
    println!("export REELYARD_DATABASE_URL='{}'", database.new_database());
    println!("export REELYARD_TICKETS_URL='{}'", broker.url());
    println!("export REELYARD_STORAGE_URL='{}'", S3Server::url(&storage.endpoint(), "farm"));
    println!("export AWS_ACCESS_KEY_ID={ACCESS_KEY_ID} AWS_SECRET_ACCESS_KEY={SECRET_ACCESS_KEY}");
    println!("# ready");
    // An error is an end too.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
