math.randomseed()   -- expect: attempt to call a nil value (field 'randomseed')
