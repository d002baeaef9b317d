//! All rows, in the order of the table.

mod again;
mod crash;
mod damage;
mod disk;
mod hostile;
mod injection;
mod neighbours;
mod sinks;
mod slow;
mod time;
mod update;

use crate::row::Row;

pub(crate) fn all() -> Vec<Row> {
    [
        crash::ROWS,
        damage::ROWS,
        disk::ROWS,
        time::ROWS,
        again::ROWS,
        slow::ROWS,
        hostile::ROWS,
        injection::ROWS,
        sinks::ROWS,
        neighbours::ROWS,
        update::ROWS,
    ]
    .concat()
}
