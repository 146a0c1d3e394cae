-- Golden cases by what they were made of: the call, and whose it was. Whoever is forgotten is forgotten there, too.

ALTER TABLE golden_cases ADD COLUMN from_call BLOB;
ALTER TABLE golden_cases ADD COLUMN from_user TEXT;
UPDATE golden_cases SET from_call = unhex(replace(substr(json_extract(body, '$.from'), 6), '-', ''));
UPDATE golden_cases SET from_user = (SELECT c.user FROM calls c WHERE c.id = from_call) WHERE from_call IS NOT NULL;
CREATE INDEX golden_cases_of_call ON golden_cases (from_call) WHERE from_call IS NOT NULL;
