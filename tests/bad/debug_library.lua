debug.sethook()   -- expect: unknown name 'debug'
