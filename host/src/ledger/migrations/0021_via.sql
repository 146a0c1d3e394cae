-- By which way an answer came: nothing over the admin plane, 'client' through the client of the agent.
ALTER TABLE approval_votes ADD COLUMN via TEXT;
