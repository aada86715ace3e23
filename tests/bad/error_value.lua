local hd = require "heddle"
error({})   -- expect: the spec raised an error that is no text but a table
