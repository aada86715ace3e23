local code = string.dump(function() end)   -- expect: attempt to call a nil value (field 'dump')
