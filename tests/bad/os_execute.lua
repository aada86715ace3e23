local hd = require "heddle"
os.execute("true")   -- expect: unknown name 'os'; a spec has no files, processes or loaded code
