local file = io.open("/etc/passwd")   -- expect: unknown name 'io'
