-- The node may hold what this directory does not know. Answers the debt.
return { owe(me) }
