//! The migrations, in order, compiled in: a list for each database. A file that was ever committed is never edited: the
//! next change is the next file (sqlx keeps a checksum of each and refuses to start on a difference; a test here keeps
//! them too). On PostgreSQL they run under a lock, so that several nodes may start at once.

use sqlx::{
    SqlStr,
    migrate::{Migration, MigrationType, Migrator},
};

type Listed = (i64, &'static str, &'static str);

const SQLITE: &[Listed] = &[
    (1, "catalogue", include_str!("../migrations/sqlite/0001_catalogue.sql")),
    (2, "indexes", include_str!("../migrations/sqlite/0002_indexes.sql")),
    (3, "restarts", include_str!("../migrations/sqlite/0003_restarts.sql")),
    (4, "uploads", include_str!("../migrations/sqlite/0004_uploads.sql")),
    (5, "access", include_str!("../migrations/sqlite/0005_access.sql")),
    (6, "same content", include_str!("../migrations/sqlite/0006_same_content.sql")),
    (7, "upload indexes", include_str!("../migrations/sqlite/0007_upload_indexes.sql")),
    (8, "fleet", include_str!("../migrations/sqlite/0008_fleet.sql")),
    (9, "claims", include_str!("../migrations/sqlite/0009_claims.sql")),
];

/// The first one is SQLite's first seven.
const POSTGRES: &[Listed] = &[
    (1, "catalogue", include_str!("../migrations/postgres/0001_catalogue.sql")),
    (2, "fleet", include_str!("../migrations/postgres/0002_fleet.sql")),
    (3, "rows that move", include_str!("../migrations/postgres/0003_rows_that_move.sql")),
    (4, "claims", include_str!("../migrations/postgres/0004_claims.sql")),
];

pub(crate) fn sqlite() -> Migrator {
    up_to(SQLITE, i64::MAX)
}

pub(crate) fn postgres() -> Migrator {
    up_to(POSTGRES, i64::MAX)
}

fn up_to(listed: &[Listed], last: i64) -> Migrator {
    let migrations =
        listed.iter().filter(|(version, ..)| *version <= last).map(|&(version, description, sql)| {
            Migration::new(
                version,
                description.into(),
                MigrationType::Simple,
                SqlStr::from_static(sql),
                false,
            )
        });
    Migrator::with_migrations(migrations.collect())
}

#[cfg(test)]
mod tests {
    use super::{Listed, POSTGRES, SQLITE, up_to};
    use crate::{Catalog, CatalogError};
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

    async fn database(path: &std::path::Path) -> SqlitePool {
        SqlitePool::connect_with(SqliteConnectOptions::new().filename(path).create_if_missing(true))
            .await
            .unwrap()
    }

    #[test]
    fn numbers_rise_by_one_and_every_file_is_listed() {
        for (folder, list) in [("sqlite", SQLITE), ("postgres", POSTGRES)] {
            let listed: Vec<i64> = list.iter().map(|(version, ..)| *version).collect();
            assert_eq!(listed, (1..=list.len() as i64).collect::<Vec<_>>());
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            assert_eq!(std::fs::read_dir(folder).unwrap().count(), list.len());
        }
    }

    /// The beginnings of their SHA-384. A test that fails here means: leave that file as it was, and make the next one.
    #[test]
    fn files_that_data_directories_have_seen_do_not_change() {
        const FROZEN: &[(i64, &str)] = &[
            (1, "6d13dc21ce13399d"),
            (2, "1a118cd670dd9ec1"),
            (3, "6e4ffff680be57e8"),
            (4, "eb7902b93060c375"),
            (5, "6bd1ebcffe903e67"),
            (6, "97fc34a515ca484f"),
            (7, "70fbbfe62a6e7e29"),
            (8, "4b25c1f577be9d40"),
            (9, "977eb4e81ef91992"),
        ];
        assert_frozen(SQLITE, FROZEN);
    }

    #[test]
    fn files_that_databases_have_seen_do_not_change() {
        assert_frozen(
            POSTGRES,
            &[
                (1, "59e05af819021b47"),
                (2, "218c07ab78a8acaa"),
                (3, "d43c659a483f15a5"),
                (4, "d290253ed8b45f92"),
            ],
        );
    }

    fn assert_frozen(list: &[Listed], frozen: &[(i64, &str)]) {
        let beginning =
            |checksum: &[u8]| checksum[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let present: Vec<(i64, String)> =
            up_to(list, i64::MAX).iter().map(|one| (one.version, beginning(&one.checksum))).collect();
        let frozen: Vec<(i64, String)> =
            frozen.iter().map(|&(version, it)| (version, it.to_owned())).collect();
        assert_eq!(present, frozen);
    }

    #[tokio::test]
    async fn every_earlier_form_is_brought_up_to_date() {
        for version in 1..=SQLITE.len() as i64 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("catalog.sqlite");
            let old = database(&path).await;
            up_to(SQLITE, version).run(&old).await.unwrap();
            old.close().await;
            let catalog = Catalog::open(&path).await.unwrap();
            catalog.check_integrity().await.unwrap();
            assert_eq!(catalog.counts().await.unwrap().last_event, 0);
        }
    }

    #[tokio::test]
    async fn keys_from_before_there_were_scopes_may_do_what_they_always_could() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.sqlite");
        let old = database(&path).await;
        up_to(SQLITE, 4).run(&old).await.unwrap();
        for statement in [
            "INSERT INTO tenant VALUES ('00000000-0000-0000-0000-000000000001', 'default', 0)",
            "INSERT INTO api_key VALUES ('1', '00000000-0000-0000-0000-000000000001', 'admin', 'ab', 0, NULL)",
        ] {
            sqlx::query(statement).execute(&old).await.unwrap();
        }
        old.close().await;
        let live = Catalog::open(&path).await.unwrap().live_api_key("ab").await.unwrap().unwrap();
        assert_eq!(live.key.scopes.to_string(), "admin");
    }

    #[tokio::test]
    async fn the_file_of_a_newer_release_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.sqlite");
        Catalog::open(&path).await.unwrap().close().await;
        let file = database(&path).await;
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (99, 'from the future', 1, x'00', 0)",
        )
        .execute(&file)
        .await
        .unwrap();
        file.close().await;
        let refused = Catalog::open(&path).await;
        let Err(error @ CatalogError::Migration(_)) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains("newer reelyard"), "{error}");
    }
}
