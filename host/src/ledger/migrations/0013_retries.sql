-- The call as which a dead one is made again, until that is over: what came to nothing by then rests again.
ALTER TABLE dead_letters ADD COLUMN again BLOB;
CREATE INDEX dead_letters_again ON dead_letters (again) WHERE again IS NOT NULL;
