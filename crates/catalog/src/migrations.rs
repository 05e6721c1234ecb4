//! The migrations, in order, compiled in. A file that was ever released is never edited: the next change is the next
//! file (sqlx keeps a checksum of each and refuses to start on a difference).

use sqlx::{
    SqlStr,
    migrate::{Migration, MigrationType, Migrator},
};

const ALL: &[(i64, &str, &str)] = &[(1, "catalogue", include_str!("../migrations/0001_catalogue.sql"))];

pub(crate) fn migrator() -> Migrator {
    let migrations = ALL.iter().map(|&(version, description, sql)| {
        Migration::new(version, description.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    });
    Migrator::with_migrations(migrations.collect())
}
