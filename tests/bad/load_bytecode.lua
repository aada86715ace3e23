local f = load("\27Lua")   -- expect: unknown name 'load'
